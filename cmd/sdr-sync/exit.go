package main

import (
	"runtime/debug"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
	"github.com/sdr-sync/sdr-sync/verify"
)

// exitCode is what a command line ends with. README.md lists the codes.
type exitCode int

const (
	exitOK          exitCode = 0 // everything asked for is published, exported and equal
	exitInternal    exitCode = 1 // a defect of sdr-sync
	exitUsage       exitCode = 2 // wrong usage or configuration; nothing was touched
	exitIncomplete  exitCode = 3 // a later run, or the flag that the message names, can finish it
	exitQuarantine  exitCode = 4 // a window has too many records that can't be normalised; it was not published
	exitCredentials exitCode = 5 // credentials refused
	exitHeld        exitCode = 6 // another run holds a lease; nothing was touched
	exitDifference  exitCode = 7 // verify found a difference
)

// precedence orders the codes: of several failures the first one listed decides.
var precedence = []exitCode{exitInternal, exitCredentials, exitDifference, exitQuarantine, exitHeld, exitIncomplete, exitUsage}

// codedError is an error with an exit code of its own.
type codedError struct {
	code exitCode
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func withCode(code exitCode, err error) error {
	if err == nil {
		return nil
	}
	return &codedError{code, err}
}

// reportedError is an error whose text the user has seen already, in a summary.
type reportedError struct{ err error }

func (e *reportedError) Error() string { return e.err.Error() }
func (e *reportedError) Unwrap() error { return e.err }

// codeOf returns the exit code of err: of the first error in its chain that has one, and of several joined ones the first by
// precedence. An error that nobody classified came from outside (network, disk, database, vendor), and a later run may succeed.
func codeOf(err error) exitCode {
	switch err {
	case nil:
		return exitOK
	case pipeline.ErrDefect:
		return exitInternal
	case pipeline.ErrCredentials:
		return exitCredentials
	case postgres.ErrSchemaVersion, parquet.ErrLakeMismatch, parquet.ErrLakeMissing, verify.ErrLakeMismatch:
		return exitUsage
	}
	switch e := err.(type) {
	case *codedError:
		return e.code
	case *postgres.LeaseHeldError:
		return exitHeld
	case *ConfigError, *postgres.PinError, *pgconn.ParseConfigError:
		return exitUsage
	case *pipeline.QuarantineError:
		return exitQuarantine
	case *pgconn.PgError:
		if e.Code == "28P01" || e.Code == "28000" { // user or password refused
			return exitCredentials
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		return worst(e.Unwrap())
	case interface{ Unwrap() error }:
		if wrapped := e.Unwrap(); wrapped != nil {
			return codeOf(wrapped)
		}
	}
	return exitIncomplete
}

func worst(errs []error) exitCode {
	found := map[exitCode]bool{}
	for _, err := range errs {
		found[codeOf(err)] = true
	}
	for _, code := range precedence {
		if found[code] {
			return code
		}
	}
	return exitOK
}

func stack() []byte { return debug.Stack() }
