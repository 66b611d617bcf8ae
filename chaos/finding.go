package chaos

import (
	"errors"
	"fmt"
)

// finding is an error that says something about the program; every other error is trouble of the harness's own.
type finding struct{ what string }

func (f *finding) Error() string { return f.what }

func findingf(format string, args ...any) error { return &finding{fmt.Sprintf(format, args...)} }

// findings splits the errors joined in err into what was found and what went wrong with the harness.
func findings(err error) (found []string, trouble error) {
	var f *finding
	switch e := err.(type) {
	case nil:
		return nil, nil
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			more, wrong := findings(one)
			found, trouble = append(found, more...), errors.Join(trouble, wrong)
		}
		return found, trouble
	}
	if errors.As(err, &f) {
		return []string{err.Error()}, nil
	}
	return nil, err
}
