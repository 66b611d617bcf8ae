package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/pipeline"
)

// LeaseHeldError says that another run works on the scope.
type LeaseHeldError struct {
	Stream  string
	Scope   pipeline.Scope
	Holder  string
	Expires time.Time
}

// Error names the holder and what to do.
func (e *LeaseHeldError) Error() string {
	which, release := e.Scope.String(), "--scope "+e.Scope.String()
	if e.Scope == pipeline.Tenant {
		which, release = e.Stream, "--stream "+e.Stream
	}
	return fmt.Sprintf("another run works on %s: %s, its lease lives until %s; nothing was touched (wait, or if that run is surely dead: sdr-sync lease release %s)",
		which, describeHolder(e.Holder), e.Expires.UTC().Format(time.RFC3339), release)
}

// Lease is one lease as the ledger holds it.
type Lease struct {
	Stream   string         `json:"stream"`
	Scope    pipeline.Scope `json:"scope"`
	Token    int64          `json:"token"`
	Holder   string         `json:"holder"`
	Acquired time.Time      `json:"acquired_at"`
	Expires  time.Time      `json:"expires_at"`
	Live     bool           `json:"live"` // neither expired nor known to be dead
}

// WithLeases takes all the leases, or none, and runs do while a heartbeat keeps them. tokens has the fencing token of each. If a lease is lost, do's context ends with ErrFenced as its cause. Another live holder is a *LeaseHeldError.
func (db *DB) WithLeases(ctx context.Context, wanted []pipeline.StreamScope, do func(ctx context.Context, tokens map[pipeline.StreamScope]int64) error) error {
	wanted = slices.SortedFunc(slices.Values(wanted), pipeline.StreamScope.Compare) // one order for all: no deadlock between runs
	tokens := map[pipeline.StreamScope]int64{}
	failpoint.Hit(failpoint.LeaseTake)
	// No heartbeat looks after this yet.
	err := db.inTime(ctx, func(ctx context.Context) error {
		return db.inTx(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
			for _, s := range wanted {
				token, err := db.takeLease(ctx, tx, s.Stream, s.Scope)
				if err != nil {
					return err
				}
				tokens[s] = token
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	defer db.releaseLeases(ctx, tokens)
	failpoint.Hit(failpoint.LeaseTaken)

	ctx, cancel := context.WithCancelCause(ctx)
	beat := make(chan struct{})
	go func() {
		defer close(beat)
		err := pipeline.Guard(func() error { // a panic here would end the process with the exit code of wrong usage
			db.heartbeat(ctx, cancel, tokens)
			return nil
		})
		if err != nil {
			cancel(err)
		}
	}()
	err = do(ctx, tokens)
	cancel(nil)
	<-beat
	return err
}

func (db *DB) takeLease(ctx context.Context, tx pgx.Tx, stream string, s pipeline.Scope) (token int64, err error) {
	const insert = `
		INSERT INTO sdr_sync.lease (stream, site, region, token, holder, acquired_at, expires_at)
		VALUES ($1, $2, $3, nextval('sdr_sync.lease_token'), $4, now(), now() + $5)
		ON CONFLICT DO NOTHING RETURNING token`
	me := holderIdentity()
	err = tx.QueryRow(ctx, insert, stream, s.Site, s.Region, me, db.cfg.Lease).Scan(&token)
	if err == nil || !errors.Is(err, pgx.ErrNoRows) {
		return token, wrap(err, "take the lease of %s", s)
	}
	var held LeaseHeldError
	var expired bool
	err = tx.QueryRow(ctx, `
		SELECT holder, expires_at, expires_at < now() FROM sdr_sync.lease WHERE stream = $1 AND site = $2 AND region = $3 FOR UPDATE`,
		stream, s.Site, s.Region).Scan(&held.Holder, &held.Expires, &expired)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, wrap(err, "read the lease of %s", s)
	}
	if err == nil && !expired && !HolderDead(held.Holder) {
		held.Stream, held.Scope = stream, s
		return 0, &held
	}
	err = tx.QueryRow(ctx, `
		INSERT INTO sdr_sync.lease AS l (stream, site, region, token, holder, acquired_at, expires_at)
		VALUES ($1, $2, $3, nextval('sdr_sync.lease_token'), $4, now(), now() + $5)
		ON CONFLICT (stream, site, region) DO UPDATE
		SET token = excluded.token, holder = excluded.holder, acquired_at = excluded.acquired_at, expires_at = excluded.expires_at
		WHERE l.expires_at < now() OR l.holder = $6
		RETURNING token`,
		stream, s.Site, s.Region, me, db.cfg.Lease, held.Holder).Scan(&token)
	if errors.Is(err, pgx.ErrNoRows) { // released and taken by a third run in between
		held.Stream, held.Scope = stream, s
		return 0, &held
	}
	return token, wrap(err, "take over the lease of %s", s)
}

// heartbeat prolongs the leases three times per lease life. A database that can't be reached is tried again at the next beat: the
// fence inside the publishing transaction is what protects the data. But one that prolongs nothing for too long would let the run wait
// for ever, so then the run ends.
func (db *DB) heartbeat(ctx context.Context, lost context.CancelCauseFunc, tokens map[pipeline.StreamScope]int64) {
	ticker := time.NewTicker(max(db.cfg.Lease/3, time.Millisecond))
	defer ticker.Stop()
	heard, failures := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for s, token := range tokens {
			failpoint.Hit(failpoint.LeaseRenew)
			beat, cancel := context.WithTimeout(ctx, db.cfg.Lease/3)
			tag, err := db.pool.Exec(beat, renewLease, s.Stream, s.Scope.Site, s.Scope.Region, token, db.cfg.Lease)
			cancel()
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				db.cfg.Log.Warn("lease not prolonged", zap.Stringer("scope", s), zap.Error(err))
				failures++
				// One failure says nothing: it may have been this process that stood still.
				if failures >= 3 && time.Since(heard) >= db.cfg.Patience {
					lost(fmt.Errorf("prolong the lease of %s: %w: %w", s, &SilentError{time.Since(heard)}, err))
					return
				}
				continue
			}
			heard, failures = time.Now(), 0
			failpoint.Hit(failpoint.LeaseRenewed)
			if tag.RowsAffected() == 0 {
				lost(fmt.Errorf("%s: %w", s, pipeline.ErrFenced))
				return
			}
		}
	}
}

const renewLease = `
	UPDATE sdr_sync.lease SET expires_at = greatest(expires_at, now() + $5)
	WHERE stream = $1 AND site = $2 AND region = $3 AND token = $4`

// fence fails with ErrFenced unless the lease with this token still stands, and keeps it so until the transaction ends.
func (db *DB) fence(ctx context.Context, tx pgx.Tx, stream string, s pipeline.Scope, token int64) error {
	tag, err := tx.Exec(ctx, renewLease, stream, s.Site, s.Region, token, db.cfg.Lease)
	if err != nil {
		return wrap(err, "check the lease of %s", s)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("scope %s: %w", s, pipeline.ErrFenced)
	}
	return nil
}

func (db *DB) releaseLeases(ctx context.Context, tokens map[pipeline.StreamScope]int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for s, token := range tokens {
		failpoint.Hit(failpoint.LeaseRelease)
		if _, err := db.pool.Exec(ctx, "DELETE FROM sdr_sync.lease WHERE stream = $1 AND site = $2 AND region = $3 AND token = $4",
			s.Stream, s.Scope.Site, s.Scope.Region, token); err != nil {
			db.cfg.Log.Warn("lease not released; it ends by itself", zap.Stringer("scope", s), zap.Error(err))
		}
		failpoint.Hit(failpoint.LeaseReleased)
	}
}

// Leases lists the leases.
func (db *DB) Leases(ctx context.Context) ([]Lease, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT stream, site, region, token, holder, acquired_at, expires_at, expires_at >= now() FROM sdr_sync.lease ORDER BY 1, 2, 3`)
	if err != nil {
		return nil, wrap(err, "list leases")
	}
	leases, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Lease, err error) {
		err = row.Scan(&l.Stream, &l.Scope.Site, &l.Scope.Region, &l.Token, &l.Holder, &l.Acquired, &l.Expires, &l.Live)
		l.Live = l.Live && !HolderDead(l.Holder)
		l.Holder = describeHolder(l.Holder)
		return l, err
	})
	return leases, wrap(err, "list leases")
}

// ReleaseLease removes the lease of a scope whoever holds it: its holder can no longer commit. It tells whether there was one.
func (db *DB) ReleaseLease(ctx context.Context, stream string, s pipeline.Scope) (bool, error) {
	released, err := db.execTx(ctx, "DELETE FROM sdr_sync.lease WHERE stream = $1 AND site = $2 AND region = $3", stream, s.Site, s.Region)
	return released > 0, wrap(err, "release the lease of %s", s)
}

// holderIdentity names this process so that another one can tell whether it still lives: host, boot, process namespace, pid and the
// tick at which it started. Host and boot alone do not do: two containers share them and see other pids.
func holderIdentity() string {
	host, _ := os.Hostname()
	return strings.Join([]string{host, bootID(), pidNamespace(), strconv.Itoa(os.Getpid()), startTick(os.Getpid())}, "|")
}

// HolderDead tells whether the holder is surely gone: it ran here, in this boot and namespace, and its pid is free or someone else's.
// In doubt it says no, and the lease has to expire.
func HolderDead(holder string) bool {
	parts := strings.Split(holder, "|")
	host, _ := os.Hostname()
	if len(parts) != 5 || parts[0] != host || parts[1] != bootID() || parts[2] != pidNamespace() {
		return false
	}
	pid, err := strconv.Atoi(parts[3])
	if err != nil || pid <= 0 {
		return false
	}
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	now := startTick(pid)
	return now != "" && parts[4] != "" && now != parts[4]
}

func describeHolder(holder string) string {
	parts := strings.Split(holder, "|")
	if len(parts) != 5 {
		return holder
	}
	return fmt.Sprintf("process %s on %s", parts[3], parts[0])
}

// The three below read /proc; elsewhere they give "", and a killed run's lease has to expire unless its pid is free.

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

func pidNamespace() string {
	s, _ := os.Readlink("/proc/self/ns/pid")
	return s
}

func startTick(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The command name, in parentheses, may hold anything; the fields after it may not. The state (first) Z means a zombie: dead.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return "gone"
	}
	return fields[19]
}

// wrap adds what was being done to err; nil stays nil.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
