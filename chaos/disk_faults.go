package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// diskFaults befall the folders.
func diskFaults() []fault {
	return []fault{
		{
			name: "full", number: "F25", what: "the disk of the folder is full, at a byte that the seed chooses", stages: at("landing", "lake"), thrice: true, run: "first", root: true,
			befall: fullDisk,
		},
		{
			name: "torn", number: "F1", what: "killed amid the pages; then the landing file is cut, changed or lost", stages: at("cut", "changed", "lost", "header"), thrice: true, run: "first",
			befall: tornLanding,
		},
		{
			name: "debris", number: "F35", what: "old staging and landing files lie about", stages: at("folders"), run: "night",
			befall: func(ctx context.Context, c *cycle) error {
				c.met = true
				for _, name := range []string{"lake.staging/sdr+old.parquet", "lake.staging/manifest.json", "landing/twins-1"} {
					if err := os.WriteFile(filepath.Join(c.dir, name), nil, 0o640); err != nil {
						return err
					}
				}
				return nil
			},
		},
		{
			name: "damage", number: "F27", what: "a published file is changed, cut, lost or joined by a stranger: verify says so, export --all repairs", run: "again",
			stages: at("flip", "cut", "lost", "manifest", "foreign"), thrice: true, befall: damagedLake,
		},
		{
			name: "readers", number: "F28", what: "Postgres and Parquet are read all the while", stages: at("night", "reslice"), run: "night",
			befall: readers,
		},
	}
}

// fullDisk mounts a small file system as the folder, and makes it larger afterwards.
func fullDisk(ctx context.Context, c *cycle) error {
	c.accept = []int{0, 3}
	folder := filepath.Join(c.dir, c.cell.Stage)
	mounted := c.dir + ".disk"
	if err := os.MkdirAll(mounted, 0o750); err != nil {
		return err
	}
	// Undisturbed, either folder comes to about half a mebibyte.
	share := map[string]int{First: 8, Middle: 90, Last: 260}[c.cell.Occurrence]
	size := (share + c.random.IntN(share)) &^ 3
	if err := syscall.Mount("tmpfs", mounted, "tmpfs", 0, fmt.Sprintf("size=%dk", size)); err != nil {
		return fmt.Errorf("mount a small disk: %w", err)
	}
	c.closers = append(c.closers, func() error {
		return errors.Join(syscall.Unmount(mounted, syscall.MNT_DETACH), os.RemoveAll(mounted))
	})
	// The lake is renamed into from the folder beside it, so both are on the disk.
	back := c.set(map[string]string{"landing": "landing", "lake": "parquet"}[c.cell.Stage], "dir", filepath.Join(mounted, c.cell.Stage))
	e, err := c.world.run(ctx, nil, c.args...)
	c.met = e.code == 3
	if err := errors.Join(err, c.disturbedUnjudged(e)); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", mounted, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		return fmt.Errorf("make the disk larger: %w", err)
	}
	if err := c.recover(ctx); err != nil { // on the same disk, with what stands there
		return err
	}
	// The judge looks where everything else is.
	for _, name := range []string{c.cell.Stage, c.cell.Stage + ".staging"} {
		from := filepath.Join(mounted, name)
		if _, err := os.Stat(from); err != nil {
			continue
		}
		if err := os.CopyFS(filepath.Join(filepath.Dir(folder), name), os.DirFS(from)); err != nil {
			return err
		}
	}
	back()
	return nil
}

// tornLanding kills a run amid the pages and damages what it landed.
func tornLanding(ctx context.Context, c *cycle) error {
	n := max(1, c.trace.points["landing.appended"])
	k := map[string]int{First: 2, Middle: n / 2, Last: n}[c.cell.Occurrence]
	e, err := c.world.run(ctx, []string{failpointEnv(fmt.Sprintf("landing.appended#%d=kill", k))}, c.args...)
	if err := errors.Join(err, c.disturbed(ctx, e)); err != nil {
		return err
	}
	names, err := c.files("landing")
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(c.dir, "landing", name)
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(name, ".landing") || strings.Contains(name, ".gen-") || len(content) < 64 {
			continue
		}
		c.met = true
		switch c.cell.Stage {
		case "cut":
			err = os.Truncate(path, int64(c.random.IntN(len(content))))
		case "changed":
			content[c.random.IntN(len(content))] ^= 1 << c.random.IntN(8)
			err = os.WriteFile(path, content, 0o640)
		case "header":
			content[c.random.IntN(32)] ^= 0xff
			err = os.WriteFile(path, content, 0o640)
		case "lost":
			err = os.Remove(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// damagedLake damages one file of the lake. verify must find it, and an export of everything must mend it.
func damagedLake(ctx context.Context, c *cycle) error {
	names, err := c.files("lake")
	if err != nil {
		return err
	}
	wanted := ".parquet"
	if c.cell.Stage == "manifest" {
		wanted = "manifest.json"
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		stream, _, _ := strings.Cut(strings.TrimPrefix(name, "_meta/"), "/")
		return !strings.HasSuffix(name, wanted) || !slices.Contains(c.streams, stream)
	})
	if len(names) == 0 {
		return errors.New("there is nothing to damage")
	}
	i := map[string]int{First: 0, Middle: len(names) / 2, Last: len(names) - 1}[c.cell.Occurrence]
	path := filepath.Join(c.dir, "lake", names[i])
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	switch c.cell.Stage {
	case "flip", "manifest":
		content[c.random.IntN(len(content))] ^= 1 << c.random.IntN(8)
		err = os.WriteFile(path, content, 0o640)
	case "cut":
		err = os.Truncate(path, int64(c.random.IntN(len(content))))
	case "lost":
		err = os.Remove(path)
	case "foreign":
		err = os.WriteFile(filepath.Join(filepath.Dir(path), "copy.parquet"), content, 0o640)
	}
	if err != nil {
		return err
	}
	c.met = true
	e, err := c.world.run(ctx, nil, "verify")
	if err == nil && e.code != 7 && (c.cell.Stage != "manifest" || e.code != 0) { // a flipped bit of a blank changes nothing
		err = findingf("verify of a lake with %s damaged (%s): want exit 7, got %s", names[i], c.cell.Stage, e)
	}
	if c.cell.Stage == "foreign" {
		err = errors.Join(err, os.Remove(filepath.Join(filepath.Dir(path), "copy.parquet")))
	}
	c.args = []string{"export", "--all"}
	return err
}
