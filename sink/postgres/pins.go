package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// PinError says that a pinned fact differs from the configuration.
type PinError struct{ Name, Pinned, Configured string }

// Error names both values.
func (e *PinError) Error() string {
	return fmt.Sprintf("this database was filled with %s = %q, the configuration says %q", e.Name, e.Pinned, e.Configured)
}

// Pin fixes name to value at first use and fails with *PinError if another value stands there.
func (db *DB) Pin(ctx context.Context, name, value string) error {
	pinned, err := db.pin(ctx, name, value)
	if err != nil {
		return err
	}
	if pinned != value {
		return &PinError{Name: name, Pinned: pinned, Configured: value}
	}
	return nil
}

// Pinned returns the value pinned under name, "" if none is.
func (db *DB) Pinned(ctx context.Context, name string) (string, error) {
	var value string
	err := db.pool.QueryRow(ctx, "SELECT coalesce((SELECT value FROM sdr_sync.pin WHERE name = $1), '')", name).Scan(&value)
	if err != nil {
		return "", fmt.Errorf("read the pin %s: %w", name, err)
	}
	return value, nil
}

// Repin replaces what is pinned, after a replay has rewritten the data that depended on it.
func (db *DB) Repin(ctx context.Context, name, value string) error {
	if _, err := db.pool.Exec(ctx, "UPDATE sdr_sync.pin SET value = $2, pinned_at = now() WHERE name = $1", name, value); err != nil {
		return fmt.Errorf("pin %s again: %w", name, err)
	}
	return nil
}

// PinLake returns the id of the lake that this database feeds, and pins id if none is pinned yet.
func (db *DB) PinLake(ctx context.Context, id string) (string, error) {
	return db.pin(ctx, "lake_id", id)
}

func (db *DB) pin(ctx context.Context, name, value string) (pinned string, err error) {
	err = db.inTx(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO sdr_sync.pin (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING", name, value); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "SELECT value FROM sdr_sync.pin WHERE name = $1", name).Scan(&pinned)
	})
	if err != nil {
		return "", fmt.Errorf("pin %s: %w", name, err)
	}
	return pinned, nil
}
