package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the OS user that the server runs as.
type account struct {
	name     string
	uid, gid int
}

// serverAccount chooses it. Postgres refuses to run as root, and as anybody but the owner of its cluster; so root runs a cluster as
// whoever owns it, and a new one as whoever owns the data folder, or else as the user postgres, or nobody.
func serverAccount(dataDir string) (account, error) {
	uid := os.Geteuid()
	for _, folder := range []string{filepath.Join(dataDir, clusterFolder), dataDir} {
		owner, err := ownerOf(folder)
		if errors.Is(err, fs.ErrNotExist) || err == nil && uid == 0 && owner.Uid == 0 {
			continue
		}
		if err != nil {
			return account{}, err
		}
		if uid != 0 && int(owner.Uid) != uid {
			return account{}, fmt.Errorf("%s belongs to user %s: run as that user or as root, or set postgres.data_dir", folder, nameOf(int(owner.Uid)))
		}
		return lookUp(int(owner.Uid), int(owner.Gid))
	}
	if uid != 0 {
		return lookUp(uid, os.Getegid())
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(u.Uid)
		gid, gidErr := strconv.Atoi(u.Gid)
		return account{name, uid, gid}, errors.Join(uidErr, gidErr)
	}
	return account{}, errors.New("there is no user postgres nor nobody to run the server as: create one (`useradd --system postgres`)")
}

func lookUp(uid, gid int) (account, error) {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return account{}, fmt.Errorf("look up the OS user %d, whose name Postgres needs: %w", uid, err)
	}
	return account{u.Username, uid, gid}, nil
}

func nameOf(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

func ownerOf(name string) (*syscall.Stat_t, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("look up the owner of %s: the system doesn't say", name)
	}
	return st, nil
}

// command prepares a server program to run as the account, in the data folder, detached from our terminal and process group, and
// with nothing of our environment that could change its behaviour.
func (a account) command(cmd *exec.Cmd, dir string) *exec.Cmd {
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return cmd
}

// own gives a file or folder that we just made, as root, to the account.
func (a account) own(name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(name, a.uid, a.gid)
}

// barrier returns the first folder on the way to dir that the account may not pass, "" if all modes say that it may.
func (a account) barrier(dir string) string {
	parent := filepath.Dir(dir)
	if parent != dir {
		if b := a.barrier(parent); b != "" {
			return b
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	bit := fs.FileMode(0o001)
	switch {
	case int(st.Uid) == a.uid:
		bit = 0o100
	case int(st.Gid) == a.gid:
		bit = 0o010
	}
	if info.Mode().Perm()&bit == 0 {
		return dir
	}
	return ""
}
