package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

// holderVariable makes the test binary take north's lease in the database that it names, and hold it until its input ends.
const holderVariable = "SDR_SYNC_TEST_HOLDER"

func holdLease(url string) int {
	ctx := context.Background()
	db, err := postgres.Open(ctx, postgres.Config{URL: pipeline.Secret(url), Lease: time.Hour})
	if err == nil {
		defer db.Close()
		err = db.WithLeases(ctx, []pipeline.StreamScope{of(north)}, func(context.Context, map[pipeline.StreamScope]int64) error {
			fmt.Println("held")
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// startHolder starts a process that holds north's lease.
func startHolder(t *testing.T, d *database) (cmd *exec.Cmd, input io.Closer) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderVariable+"="+d.url)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil || line != "held\n" {
		t.Fatalf("the holder says %q (%v)", line, err)
	}
	return cmd, input
}

// hold keeps the leases until release is called, which returns how it ended.
func hold(t *testing.T, db *postgres.DB, scopes ...pipeline.Scope) (held context.Context, tokens map[pipeline.StreamScope]int64, release func() error) {
	t.Helper()
	type grant struct {
		ctx    context.Context
		tokens map[pipeline.StreamScope]int64
	}
	granted, end, result := make(chan grant, 1), make(chan struct{}), make(chan error, 1)
	go func() {
		err := db.WithLeases(t.Context(), ofAll(scopes), func(ctx context.Context, tokens map[pipeline.StreamScope]int64) error {
			granted <- grant{ctx, tokens}
			<-end
			return context.Cause(ctx)
		})
		result <- err
	}()
	release = sync.OnceValue(func() error { close(end); return <-result })
	t.Cleanup(func() { release() })
	select {
	case g := <-granted:
		return g.ctx, g.tokens, release
	case err := <-result:
		t.Fatalf("take the leases: %v", err)
		return nil, nil, nil
	}
}

func tryLease(t *testing.T, db *postgres.DB, scopes ...pipeline.Scope) (tokens map[pipeline.StreamScope]int64, err error) {
	t.Helper()
	err = db.WithLeases(t.Context(), ofAll(scopes), func(_ context.Context, granted map[pipeline.StreamScope]int64) error {
		tokens = granted
		return nil
	})
	return tokens, err
}

func TestLeaseIsExclusive(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	_, tokens, release := hold(t, d.DB, north)
	_, err := tryLease(t, openURL(t, d.url), north)
	var held *postgres.LeaseHeldError
	if !errors.As(err, &held) || held.Scope != north {
		t.Fatalf("got %v, want a LeaseHeldError of %s", err, north)
	}
	for _, want := range []string{north.String(), fmt.Sprintf("process %d on ", os.Getpid()), held.Expires.UTC().Format(time.RFC3339), "sdr-sync lease release --scope"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	leases, err := d.Leases(t.Context())
	if err != nil || len(leases) != 1 || leases[0].Scope != north || leases[0].Token != tokens[of(north)] || !leases[0].Live || leases[0].Stream != stream ||
		leases[0].Expires.Sub(leases[0].Acquired) < 30*time.Second || !strings.Contains(leases[0].Holder, fmt.Sprint(os.Getpid())) {
		t.Errorf("got %+v (%v)", leases, err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if leases, err := d.Leases(t.Context()); err != nil || len(leases) != 0 {
		t.Errorf("after the release: got %+v (%v)", leases, err)
	}
	again, err := tryLease(t, d.DB, north)
	if err != nil || again[of(north)] <= tokens[of(north)] {
		t.Errorf("got token %d after %d (%v)", again[of(north)], tokens[of(north)], err)
	}
}

// Ten runs want two scopes in different orders; exactly one at a time gets both, and nobody deadlocks.
func TestLeasesAreTakenInOneOrder(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	inside, got, refused := 0, 0, 0
	for i := range 10 {
		scopes := []pipeline.Scope{north, east}
		if i%2 == 0 {
			scopes = []pipeline.Scope{east, north}
		}
		wg.Go(func() {
			err := d.WithLeases(t.Context(), ofAll(scopes), func(_ context.Context, tokens map[pipeline.StreamScope]int64) error {
				mu.Lock()
				defer mu.Unlock()
				if inside++; inside > 1 {
					t.Error("two runs hold the same leases")
				}
				got++
				inside--
				if len(tokens) != 2 {
					t.Errorf("got tokens %v", tokens)
				}
				return nil
			})
			var held *postgres.LeaseHeldError
			if err != nil && !errors.As(err, &held) {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				refused++
			}
		})
	}
	wg.Wait()
	if got == 0 || got+refused != 10 {
		t.Errorf("%d got the leases, %d were refused", got, refused)
	}
}

func TestLeasesAllOrNothing(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	_, _, release := hold(t, d.DB, north)
	var held *postgres.LeaseHeldError
	if _, err := tryLease(t, d.DB, pipeline.Scope{Site: "a"}, north, pipeline.Scope{Site: "z"}); !errors.As(err, &held) || held.Scope != north {
		t.Fatalf("got %v", err)
	}
	if leases, err := d.Leases(t.Context()); err != nil || len(leases) != 1 {
		t.Errorf("got %+v (%v), want north's alone", leases, err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	// The same scope of another stream is another lease.
	_, _, release = hold(t, d.DB, north)
	if err := d.WithLeases(t.Context(), []pipeline.StreamScope{{Stream: "subscriptions", Scope: north}}, func(context.Context, map[pipeline.StreamScope]int64) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}

// A lease that ran out belongs to whoever comes first. The old holder learns it, can't publish, and leaves the new one's lease alone.
func TestLeaseRunsOut(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	old := openConfig(t, postgres.Config{URL: pipeline.Secret(d.url), Lease: 300 * time.Millisecond})
	ctx, tokens, release := hold(t, old, north, east)
	// It ran out while the old holder was stopped, as it seems: with its token the heartbeat would be faster than the new holder.
	d.exec(t, "UPDATE sdr_sync.lease SET expires_at = now() - interval '1 hour', token = nextval('sdr_sync.lease_token') WHERE region = $1", north.Region)
	_, newTokens, releaseNew := hold(t, d.DB, north)
	if newTokens[of(north)] <= tokens[of(north)] {
		t.Errorf("got token %d after %d", newTokens[of(north)], tokens[of(north)])
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, pipeline.ErrFenced) || !strings.Contains(cause.Error(), north.String()) {
		t.Errorf("the old holder's context ended with %v", cause)
	}
	r := d.replacement(d.prepare(t, march, someRecords(3)))
	r.LeaseToken = tokens[of(north)]
	if _, err := d.Publish(t.Context(), r); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("the old holder publishes: got %v", err)
	}
	if err := release(); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("the old holder's end: got %v", err)
	}
	leases, err := d.Leases(t.Context())
	if err != nil || len(leases) != 1 || leases[0].Token != newTokens[of(north)] {
		t.Errorf("got %+v (%v), want the new holder's lease", leases, err)
	}
	r.LeaseToken = newTokens[of(north)]
	if _, err := d.Publish(t.Context(), r); err != nil {
		t.Errorf("the new holder publishes: %v", err)
	}
	if err := releaseNew(); err != nil {
		t.Error(err)
	}
}

// An expired lease of a holder on another machine is free, a living one is not.
func TestLeaseOfAnotherMachine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, holder, expires string
		free                  bool
	}{
		{"living", "other|boot|pid:[1]|1|1", "1 minute", false},
		{"expired", "other|boot|pid:[1]|1|1", "-1 second", true},
		{"no identity", "someone", "1 minute", false},
		{"no identity, expired", "someone", "-1 second", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDatabase(t)
			d.exec(t, "INSERT INTO sdr_sync.lease VALUES ('sdr', $1, $2, nextval('sdr_sync.lease_token'), $3, now(), now() + $4::text::interval)", north.Site, north.Region, test.holder, test.expires)
			leases, err := d.Leases(t.Context())
			if err != nil || len(leases) != 1 || leases[0].Live == test.free {
				t.Errorf("got %+v (%v)", leases, err)
			}
			_, err = tryLease(t, d.DB, north)
			var held *postgres.LeaseHeldError
			if test.free != (err == nil) || !test.free && !errors.As(err, &held) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A run that was killed -9 leaves its lease behind. The next one need not wait for it to expire.
func TestHolderKilled(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	cmd, _ := startHolder(t, d)
	_, err := tryLease(t, d.DB, north)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d on ", cmd.Process.Pid)) {
		t.Fatalf("while it lives: got %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if leases, err := d.Leases(t.Context()); err != nil || len(leases) != 1 || leases[0].Live {
		t.Errorf("got %+v (%v), want one that is dead", leases, err)
	}
	if _, err := tryLease(t, d.DB, north); err != nil {
		t.Errorf("after its death: %v", err)
	}

	// One that ends in order leaves nothing.
	cmd, input := startHolder(t, d)
	input.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if leases, err := d.Leases(t.Context()); err != nil || len(leases) != 0 {
		t.Errorf("after its end: got %+v (%v)", leases, err)
	}
}

// A killed process that nobody has waited for yet still has its pid.
func TestHolderIsAZombie(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	cmd, _ := startHolder(t, d)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitZombie(t, cmd.Process.Pid)
	if _, err := tryLease(t, d.DB, north); err != nil {
		t.Errorf("got %v", err)
	}
}

// awaitZombie polls until the child has ended, and leaves it unreaped: nothing announces that.
func awaitZombie(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(stat), ") Z ") {
			return
		}
	}
}

// A heartbeat keeps a lease of 300 ms alive for many times its life.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	db := openConfig(t, postgres.Config{URL: pipeline.Secret(d.url), Lease: 300 * time.Millisecond})
	ctx, tokens, release := hold(t, db, north, east)
	d.await(t, "both leases were prolonged beyond four of their lives", "SELECT min(expires_at - acquired_at) > interval '1.2 seconds' FROM sdr_sync.lease")
	if ctx.Err() != nil {
		t.Errorf("the holder was told to stop: %v", context.Cause(ctx))
	}
	r := d.replacement(d.prepare(t, march, someRecords(3)))
	r.LeaseToken = tokens[of(north)]
	if _, err := db.Publish(t.Context(), r); err != nil {
		t.Error(err)
	}
	if err := release(); err != nil {
		t.Errorf("got %v, want an orderly end", err)
	}
}

func TestReleaseLease(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	if was, err := d.ReleaseLease(t.Context(), stream, north); err != nil || was {
		t.Errorf("where there is none: got %t (%v)", was, err)
	}
	db := openConfig(t, postgres.Config{URL: pipeline.Secret(d.url), Lease: 300 * time.Millisecond})
	ctx, tokens, release := hold(t, db, north, east)
	if was, err := d.ReleaseLease(t.Context(), stream, north); err != nil || !was {
		t.Errorf("got %t (%v), want the lease released", was, err)
	}
	<-ctx.Done()
	if err := release(); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("the holder ended with %v", err)
	}
	r := d.replacement(d.prepare(t, march, someRecords(3)))
	r.LeaseToken = tokens[of(north)]
	if _, err := d.Publish(t.Context(), r); !errors.Is(err, pipeline.ErrFenced) {
		t.Errorf("got %v", err)
	}
	if leases, err := d.Leases(t.Context()); err != nil || len(leases) != 0 {
		t.Errorf("got %+v (%v), want east's given back too", leases, err)
	}
}

// What the run returns is returned, and its leases are given back whatever it is.
func TestLeaseAfterAnError(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := d.WithLeases(ctx, []pipeline.StreamScope{of(north)}, func(context.Context, map[pipeline.StreamScope]int64) error {
		cancel()
		return errTorn
	})
	if !errors.Is(err, errTorn) {
		t.Errorf("got %v", err)
	}
	if leases, err := d.Leases(t.Context()); err != nil || len(leases) != 0 {
		t.Errorf("got %+v (%v)", leases, err)
	}
}
