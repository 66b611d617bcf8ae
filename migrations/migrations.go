// Package migrations holds the database schema as numbered SQL files for goose. A released file is never edited.
package migrations

import "embed"

// Files are the migrations, NNNN_name.sql.
//
//go:embed *.sql
var Files embed.FS
