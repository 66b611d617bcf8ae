package chaos_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sdr-sync/sdr-sync/chaos"
)

// What is found is told apart from trouble of the harness's own, however errors are joined and wrapped.
func TestFindings(t *testing.T) {
	t.Parallel()
	trouble := errors.New("no database")
	found, wrong := chaos.Findings(errors.Join(
		nil, chaos.Findingf("one"), errors.Join(fmt.Errorf("wrapped: %w", chaos.Findingf("two")), trouble), nil))
	if fmt.Sprint(found) != "[one wrapped: two]" || !errors.Is(wrong, trouble) {
		t.Errorf("got %q and %v", found, wrong)
	}
	if found, wrong := chaos.Findings(nil); found != nil || wrong != nil {
		t.Errorf("nothing: got %v and %v", found, wrong)
	}
}

// The judge sees a lost, a doubled, a changed and an invented sum.
func TestSharesDiffer(t *testing.T) {
	t.Parallel()
	truth := map[string][2]string{"2024-03-01 Flow": {"3", "1.5"}, "2024-03-02 Flow": {"1", "2"}}
	for _, c := range []struct {
		name string
		got  map[string][2]string
		same bool
	}{
		{"equal", map[string][2]string{"2024-03-01 Flow": {"3", "1.5"}, "2024-03-02 Flow": {"1", "2"}}, true},
		{"lost", map[string][2]string{"2024-03-01 Flow": {"3", "1.5"}}, false},
		{"doubled", map[string][2]string{"2024-03-01 Flow": {"6", "3"}, "2024-03-02 Flow": {"1", "2"}}, false},
		{"changed by the twelfth digit", map[string][2]string{"2024-03-01 Flow": {"3", "1.500000000001"}, "2024-03-02 Flow": {"1", "2"}}, false},
		{"invented", map[string][2]string{"2024-03-01 Flow": {"3", "1.5"}, "2024-03-02 Flow": {"1", "2"}, "2024-03-03 Flow": {"1", "0"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := chaos.SharesDiffer(truth, c.got)
			if found, wrong := chaos.Findings(err); (len(found) == 0) != c.same || wrong != nil {
				t.Errorf("got %v, want equal %t", err, c.same)
			}
		})
	}
}
