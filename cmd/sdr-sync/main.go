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
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		<-signals
		cancel(errInterrupted)
		<-signals
		os.Exit(int(exitIncomplete))
	}()
	return int(execute(ctx, args, stdin, stdout, stderr))
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, args []string, stdin, stdout, stderr *os.File) (code exitCode) {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(stderr, "sdr-sync: internal error: %v\n%s", p, stack())
			code = exitInternal
		}
	}()
	defer pprof.StopCPUProfile()
	root := a.commands()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	code = codeOf(err)
	if err != nil {
		var quiet *reportedError
		if !errors.As(err, &quiet) {
			fmt.Fprintf(stderr, "sdr-sync: %v\n", err)
		}
	}
	return code
}
