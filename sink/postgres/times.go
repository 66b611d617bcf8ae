package postgres

import (
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// optionalTime scans a timestamptz in which -infinity stands for none, which becomes the zero time.
type optionalTime struct{ time.Time }

// ScanTimestamptz implements pgtype.TimestamptzScanner.
func (t *optionalTime) ScanTimestamptz(v pgtype.Timestamptz) error {
	t.Time = time.Time{}
	if v.Valid && v.InfinityModifier == pgtype.Finite {
		t.Time = v.Time.UTC()
	}
	return nil
}
