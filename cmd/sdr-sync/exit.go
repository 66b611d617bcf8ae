package main

import (
	"context"
	"errors"
	"runtime/debug"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/sink/parquet"
	"github.com/sdr-sync/sdr-sync/sink/postgres"
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

// codeOf returns the exit code of err. An error that nobody classified came from outside (network, disk, database, vendor), and a
// later run may succeed; defects are panics and errors that say so.
func codeOf(err error) exitCode {
	if err == nil {
		return exitOK
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return worst(joined.Unwrap())
	}
	var coded *codedError
	var config *ConfigError
	var held *postgres.LeaseHeldError
	var pin *postgres.PinError
	var quarantine *pipeline.QuarantineError
	var parse *pgconn.ParseConfigError
	switch {
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &held):
		return exitHeld
	case errors.As(err, &config), errors.As(err, &pin), errors.As(err, &parse), errors.Is(err, postgres.ErrSchemaVersion),
		errors.Is(err, parquet.ErrLakeMismatch), errors.Is(err, parquet.ErrLakeMissing):
		return exitUsage
	case errors.As(err, &quarantine):
		return exitQuarantine
	case errors.Is(err, pipeline.ErrCredentials), isLoginRefused(err):
		return exitCredentials
	case errors.Is(err, context.Canceled), errors.Is(err, errInterrupted):
		return exitIncomplete
	}
	if wrapped := errors.Unwrap(err); wrapped != nil {
		return codeOf(wrapped)
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

// isLoginRefused tells whether Postgres refused the user or the password.
func isLoginRefused(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && (pgErr.Code == "28P01" || pgErr.Code == "28000")
}

func stack() []byte { return debug.Stack() }
