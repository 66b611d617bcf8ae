package chaos

import (
	"fmt"
	"strings"
)

// Cell is one thing that can go wrong: a fault, at a stage of a run, at an occurrence of that stage. Its text form is
// "kill/publish.before-commit/first".
type Cell struct {
	Fault      string `json:"fault"`
	Stage      string `json:"stage"`
	Occurrence string `json:"occurrence"`
}

// The occurrences of a stage that is met several times in a run. What is met once is met first.
const (
	First  = "first"
	Middle = "middle"
	Last   = "last"
)

// String returns the text form.
func (c Cell) String() string { return c.Fault + "/" + c.Stage + "/" + c.Occurrence }

// ParseCell reads the text form. Whether there is such a cell is the matrix's to say.
func ParseCell(text string) (Cell, error) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return Cell{}, fmt.Errorf("cell %q: want FAULT/STAGE/OCCURRENCE, such as kill/publish.before-commit/first", text)
	}
	return Cell{parts[0], parts[1], parts[2]}, nil
}
