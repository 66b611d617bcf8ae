package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// CodeName is what a user calls a code that the vendor's dictionaries leave open. Service limits it to one cloud service, "" does not.
type CodeName struct {
	Kind    string
	Code    string
	Service string
	NameEN  string
	NameZH  string
}

// CodeKinds are the kinds of codes that can be named.
var CodeKinds = []string{"service_type", "resource_type", "usage_type", "measure_unit"}

// ReplaceCodeNames lets names stand, and nothing else that a user named before.
func (db *DB) ReplaceCodeNames(ctx context.Context, names []CodeName) error {
	return wrap(db.inTx(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM sdr_sync.code_name"); err != nil {
			return err
		}
		for chunk := range slices.Chunk(names, 1000) {
			batch := &pgx.Batch{}
			for _, n := range chunk {
				batch.Queue(`INSERT INTO sdr_sync.code_name (kind, code, service_type_code, name_en, name_zh) VALUES ($1, $2, $3, nullif($4, ''), nullif($5, ''))`,
					n.Kind, n.Code, n.Service, n.NameEN, n.NameZH)
			}
			if err := tx.SendBatch(ctx, batch).Close(); err != nil {
				return err
			}
		}
		return nil
	}), "replace the names of codes")
}

// UnmappedCode is a code without a name, and how often it is seen.
type UnmappedCode struct {
	Kind          string `json:"kind"`
	Code          string `json:"code"`
	Service       string `json:"service_type_code,omitempty"`
	Records       int64  `json:"records"`
	Subscriptions int64  `json:"subscriptions"`
}

// UnmappedCodes lists the codes of records and subscriptions that have no name.
func (db *DB) UnmappedCodes(ctx context.Context) ([]UnmappedCode, error) {
	rows, err := db.pool.Query(ctx, `
		SELECT kind, code, service_type_code, records, subscriptions FROM billing.unmapped_codes ORDER BY kind, service_type_code, code`)
	if err != nil {
		return nil, wrap(err, "list codes without a name")
	}
	codes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[UnmappedCode])
	return codes, wrap(err, "list codes without a name")
}
