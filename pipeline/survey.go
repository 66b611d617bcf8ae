package pipeline

import (
	"errors"
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
	rejects rejects

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
	surveying := options
	surveying.Survey = true
	return &survey{
		stream: stream, options: options, decoder: record.NewDecoder(stream, surveying), row: record.NewRow(stream), twins: twins, rejects: rejects{dir: dir},
		usageDates: map[Date]int64{}, reasons: map[string]int64{},
	}, nil
}

func (s *survey) close() error { return errors.Join(s.twins.Close(), s.rejects.close()) }

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
			if err := s.rejects.add(s.seq, Rejected{Reject: *reject, Page: int(s.pages), Position: position, Raw: element}); err != nil {
				return err
			}
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
		Rows:    func(yield func(*record.Row, error) bool) { s.rows(pages(), yield) },
		Rejects: s.rejects.all(s.twins),
	}
}

// rows decodes the pages again, now with every twin's ordinal, and yields what is no reject.
func (s *survey) rows(pages iter.Seq2[Page, error], yield func(*record.Row, error) bool) {
	decoder, row, ordinals := record.NewDecoder(s.stream, s.options), record.NewRow(s.stream), s.twins.Pass()
	seq := int64(0)
	for p, err := range pages {
		if err != nil {
			yield(nil, err)
			return
		}
		for element := range record.Elements(p.Data) {
			ordinal, err := ordinals.Ordinal(seq)
			if err != nil {
				yield(nil, err)
				return
			}
			seq++
			if decoder.Decode(element, row) != nil {
				continue // in the survey's rejects
			}
			row.Ordinal = ordinal
			if !yield(row, nil) {
				return
			}
		}
	}
}
