// Command sdr-sync pulls metering records from Huawei's dedicated-cloud APIs and keeps Postgres tables and Parquet files of them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
)

// memoryLimit makes the collector work harder before the Parquet encoder's peaks reach 200 MiB. It is soft: what is really needed is had.
const memoryLimit = 180 << 20

func main() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted; run the same command again and it goes on where it stopped")

// run is main without the process: the first signal stops work in an orderly way, the second kills.
func run(args []string, stdin *os.File, stdout, stderr *os.File) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		for stopping := false; ; {
			if s := <-signals; s == syscall.SIGINT && a.deaf.Load() {
				continue
			}
			if stopping {
				os.Exit(int(exitIncomplete))
			}
			stopping = true
			cancel(errInterrupted)
		}
	}()
	return int(a.execute(ctx, args))
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, args []string, stdin, stdout, stderr *os.File) exitCode {
	return (&app{stdin: stdin, stdout: stdout, stderr: stderr}).execute(ctx, args)
}

func (a *app) execute(ctx context.Context, args []string) (code exitCode) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(a.stderr, "sdr-sync: internal error: %v\n%s", p, stack())
			code = exitInternal
		}
	}()
	defer pprof.StopCPUProfile()
	root := a.commands()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	rest := unreported(err)
	for _, err := range rest {
		fmt.Fprintf(a.stderr, "sdr-sync: %v\n", err)
	}
	code = codeOf(err)
	if len(rest) > 0 && a.output == "json" && !a.printed { // whoever reads standard output alone must learn of it too
		_ = a.printJSON(&report{Command: a.command, ExitCode: code, Message: err.Error()})
	}
	return code
}

// unreported returns the errors in err, a tree of joined ones, that no report has shown yet.
func unreported(err error) []error {
	var reported *reportedError
	switch e := err.(type) {
	case nil, *reportedError:
		return nil
	case interface{ Unwrap() []error }:
		if !errors.As(err, &reported) {
			return []error{err}
		}
		var rest []error
		for _, one := range e.Unwrap() {
			rest = append(rest, unreported(one)...)
		}
		return rest
	}
	if errors.As(err, &reported) {
		return nil
	}
	return []error{err}
}
