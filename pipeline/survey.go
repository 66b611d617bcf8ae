package pipeline

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// survey reads a job's pages once, as they are landed, and learns all that decides whether and how they are published: digests,
// counts, usage dates, unknown fields and exact twins. It holds none of the records.
type survey struct {
	stream  *schemas.Stream
	options record.Options
	decoder *record.Decoder
	row     *record.Row
	twins   *record.Twins

	seq         int64
	pages       int64
	records     record.Digest
	quarantined record.Digest
	usageDates  map[Date]int64
	reasons     map[string]int64
	example     string
}

// newSurvey keeps its spill of hashes in dir, unlinked.
func newSurvey(stream *schemas.Stream, options record.Options, dir string) (*survey, error) {
	twins, err := record.NewTwins(dir)
	if err != nil {
		return nil, err
	}
	return &survey{
		stream: stream, options: options, decoder: record.NewDecoder(stream, options), row: record.NewRow(stream), twins: twins,
		usageDates: map[Date]int64{}, reasons: map[string]int64{},
	}, nil
}

func (s *survey) close() error { return s.twins.Close() }

// add surveys the next page.
func (s *survey) add(p Page) error {
	s.pages++
	position := 0
	for element := range record.Elements(p.Data) {
		position++
		h := &s.row.Hash
		if reject := s.decoder.Decode(element, s.row); reject != nil {
			s.quarantined.Add(reject.RawHash)
			s.reasons[reject.Reason]++
			if s.example == "" {
				s.example = fmt.Sprintf("page %d, record %d: %s %s: %s", s.pages, position, reject.Reason, reject.Field, reject.Detail)
			}
			h = &reject.RawHash
		} else {
			s.records.Add(s.row.Hash)
			s.usageDates[s.row.UsageDate]++
		}
		if err := s.twins.Add(s.seq, *h); err != nil {
			return err
		}
		s.seq++
	}
	return nil
}

// finish numbers the twins. After it the publication can be made, and pages can be passed over again.
func (s *survey) finish() error { return s.twins.Finish() }

// tooBad tells whether more than max(100, share) of all records are quarantined.
func (s *survey) tooBad(w Window, share float64) error {
	bad, total := s.quarantined.Count, s.quarantined.Count+s.records.Count
	if bad <= 100 || float64(bad) <= share*float64(total) {
		return nil
	}
	var reasons []string
	for _, r := range slices.Sorted(maps.Keys(s.reasons)) {
		reasons = append(reasons, fmt.Sprintf("%s %d", r, s.reasons[r]))
	}
	return &QuarantineError{Window: w, Quarantined: bad, Total: total, Example: s.example + " (" + strings.Join(reasons, ", ") + ")"}
}

// publication offers the surveyed pages as rows and rejects; pages must yield the same pages each time.
func (s *survey) publication(job Job, pages func() iter.Seq2[Page, error]) Publication {
	return Publication{
		Job: job, Records: s.records, Quarantined: s.quarantined, MissingAmounts: s.decoder.MissingAmounts(),
		UsageDates: s.usageDates, UnknownFields: s.decoder.Unknown(),
		Rows: func(yield func(*record.Row, error) bool) {
			err := s.pass(pages(), func(row *record.Row, _ *Rejected) bool { return row == nil || yield(row, nil) })
			if err != nil {
				yield(nil, err)
			}
		},
		Rejects: func(yield func(Rejected, error) bool) {
			err := s.pass(pages(), func(_ *record.Row, r *Rejected) bool { return r == nil || yield(*r, nil) })
			if err != nil {
				yield(Rejected{}, err)
			}
		},
	}
}

// pass decodes the pages again, now with every twin's ordinal, and hands over either a row or a reject until visit says no.
func (s *survey) pass(pages iter.Seq2[Page, error], visit func(*record.Row, *Rejected) bool) error {
	decoder, row, ordinals := record.NewDecoder(s.stream, s.options), record.NewRow(s.stream), s.twins.Pass()
	seq, page := int64(0), 0
	for p, err := range pages {
		if err != nil {
			return err
		}
		page++
		position := 0
		for element := range record.Elements(p.Data) {
			position++
			ordinal, err := ordinals.Ordinal(seq)
			if err != nil {
				return err
			}
			seq++
			more := true
			if reject := decoder.Decode(element, row); reject != nil {
				more = visit(nil, &Rejected{Reject: *reject, Page: page, Position: position, Ordinal: ordinal, Raw: element})
			} else {
				row.Ordinal = ordinal
				more = visit(row, nil)
			}
			if !more {
				return nil
			}
		}
	}
	return nil
}
