package source_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/source"
)

// TestBodyStatus has answers of status 200 whose bodies stand for another.
func TestBodyStatus(t *testing.T) {
	t.Parallel()
	absent := errors.New("absent")
	for name, c := range map[string]struct {
		meaning int
		want    error
		again   bool
	}{
		"bad request": {400, pipeline.ErrRefused, false},
		"denied":      {403, pipeline.ErrCredentials, false},
		"not there":   {404, absent, false},
		"throttled":   {429, nil, true},
		"broken":      {500, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			req := get(serve(t, answers(&calls, status(200, `{"error_code":"CBC.0100","error_msg":"canary-token says no"}`))))
			req.NotFound = absent
			req.Conceal = []string{"canary-token"}
			req.Check = func([]byte) error {
				if calls.Load() > 1 {
					return nil
				}
				return fmt.Errorf("wrapped: %w", source.BodyStatus(c.meaning))
			}
			resp, err := newTransport(t, source.Config{}).Do(t.Context(), req)
			resp.Release()
			if c.again {
				if err != nil || calls.Load() != 2 {
					t.Errorf("Do = %v after %d calls, want a second that succeeds", err, calls.Load())
				}
				return
			}
			var refusal *source.StatusError
			if !errors.As(err, &refusal) || refusal.Status != c.meaning || refusal.SentAs != 200 || refusal.Code != "CBC.0100" {
				t.Fatalf("Do = %v, want a StatusError", err)
			}
			if !errors.Is(err, c.want) || calls.Load() != 1 {
				t.Errorf("Do = %v after %d calls, want %v", err, calls.Load(), c.want)
			}
			if want := fmt.Sprintf("status 200 that means %d: CBC.0100", c.meaning); !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("Do = %v, want %q in it and no secret", err, want)
			}
		})
	}
}

func TestSettledIsToldOfEachSignedAttempt(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	req := get(serve(t, answers(&calls, status(503, "{}"), status(200, "no JSON"), reset(""), status(403, `{"error_code":"X"}`))))
	req.Method = http.MethodPost // net/http itself repeats others on a connection that broke
	var signed []*http.Request
	var told []string
	req.Auth = source.Auth{
		Sign: func(r *http.Request) error {
			signed = append(signed, r)
			return nil
		},
		Settled: func(r *http.Request, end error) {
			if r != signed[len(signed)-1] {
				t.Error("told of a request that was not the last signed")
			}
			var refusal *source.StatusError
			if errors.As(end, &refusal) {
				told = append(told, fmt.Sprint(refusal.Status))
			} else {
				told = append(told, fmt.Sprint(end != nil))
			}
		},
	}
	if _, err := newTransport(t, source.Config{}).Do(t.Context(), req); !errors.Is(err, pipeline.ErrCredentials) {
		t.Errorf("Do = %v", err)
	}
	if got := strings.Join(told, " "); got != "503 true true 403" {
		t.Errorf("told %q", got)
	}
	req.URL, told = serve(t, status(200, "{}")), nil
	resp, err := newTransport(t, source.Config{}).Do(t.Context(), req)
	resp.Release()
	if err != nil || strings.Join(told, " ") != "false" {
		t.Errorf("Do = %v, told %q", err, told)
	}
	req.Auth.Sign, told = func(*http.Request) error { return pipeline.ErrCredentials }, nil
	if _, err := newTransport(t, source.Config{}).Do(t.Context(), req); !errors.Is(err, pipeline.ErrCredentials) || told != nil {
		t.Errorf("Do = %v, told %q of what was never sent", err, told)
	}
}
