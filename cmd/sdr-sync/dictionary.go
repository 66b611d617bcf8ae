package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sdr-sync/sdr-sync/sink/postgres"
)

func (a *app) dictionaryCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "dictionary", Short: "See codes without a name, and name them"}
	unmapped := &cobra.Command{
		Use:   "unmapped",
		Short: "List the codes of metering records and subscriptions that have no name (billing.unmapped_codes)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				codes, err := db.UnmappedCodes(ctx)
				if err != nil {
					return err
				}
				if a.output == "json" {
					return a.printJSON(map[string]any{"codes": codes})
				}
				t := a.table("KIND", "SERVICE", "CODE", "RECORDS", "SUBSCRIPTIONS")
				for _, c := range codes {
					t.row(c.Kind, c.Service, c.Code, c.Records, c.Subscriptions)
				}
				return t.flush()
			})
		},
	}
	load := &cobra.Command{
		Use:   "load FILE.csv",
		Short: "Name codes that the vendor's dictionaries leave open",
		Long: `Read a CSV file with the columns kind, code, name_en, name_zh and optionally service_type_code, and let its names stand wherever the
vendor gives none. kind is service_type, resource_type, usage_type or measure_unit. The file replaces what was loaded before, as a whole.`,
		Example: "  kind,code,name_en,name_zh,service_type_code\n  service_type,hws.service.type.ec2,Elastic Cloud Server,弹性云服务器,\n  resource_type,hws.resource.type.vm,Virtual machine,云主机,hws.service.type.ec2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := readNames(args[0])
			if err != nil {
				return withCode(exitUsage, err)
			}
			if err := a.loadConfig(NeedDatabase); err != nil {
				return err
			}
			return a.withDatabase(cmd.Context(), func(ctx context.Context, db *postgres.DB) error {
				if err := db.ReplaceCodeNames(ctx, names); err != nil {
					return err
				}
				codes, err := db.UnmappedCodes(ctx)
				if err == nil {
					_, err = fmt.Fprintf(a.stdout, "%d names loaded; %d codes are left without one\n", len(names), len(codes))
				}
				return err
			})
		},
	}
	cmd.AddCommand(unmapped, load)
	return cmd
}

// readNames reads a user's CSV of names. Every line that can't be used is an error with its number.
func readNames(path string) (names []postgres.CodeName, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := csv.NewReader(f)
	r.TrimLeadingSpace = true
	header, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	column := map[string]int{}
	for i, name := range header {
		column[strings.TrimSpace(name)] = i
	}
	for _, name := range []string{"kind", "code", "name_en", "name_zh"} {
		if _, ok := column[name]; !ok {
			return nil, fmt.Errorf("read %s: there is no column %q in its first line", path, name)
		}
	}
	seen := map[postgres.CodeName]int{}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		line, _ := r.FieldPos(0)
		cell := func(name string) string {
			if i, ok := column[name]; ok {
				return strings.TrimSpace(record[i])
			}
			return ""
		}
		n := postgres.CodeName{Kind: cell("kind"), Code: cell("code"), Service: cell("service_type_code"), NameEN: cell("name_en"), NameZH: cell("name_zh")}
		key := postgres.CodeName{Kind: n.Kind, Code: n.Code, Service: n.Service}
		switch {
		case slices.ContainsFunc(record, func(cell string) bool { return !utf8.ValidString(cell) || strings.Contains(cell, "\x00") }):
			return nil, fmt.Errorf("%s:%d: the line is no UTF-8 text", path, line)
		case !slices.Contains(postgres.CodeKinds, n.Kind):
			return nil, fmt.Errorf("%s:%d: the kind %q is none of %s", path, line, n.Kind, strings.Join(postgres.CodeKinds, ", "))
		case n.Service != "" && (n.Kind == "service_type" || n.Kind == "measure_unit"):
			return nil, fmt.Errorf("%s:%d: a %s has no service_type_code of its own: leave it empty", path, line, n.Kind)
		case n.Code == "" || n.NameEN == "" && n.NameZH == "":
			return nil, fmt.Errorf("%s:%d: a code and at least one name are needed", path, line)
		case seen[key] > 0:
			return nil, fmt.Errorf("%s:%d: %s %s is named in line %d already", path, line, n.Kind, n.Code, seen[key])
		}
		seen[key] = line
		names = append(names, n)
	}
}
