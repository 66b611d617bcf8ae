package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/sdr-sync/sdr-sync/pipeline/record"
	"github.com/sdr-sync/sdr-sync/schemas"
)

// survey reads a job's pages once, as they are landed, and learns all that decides whether and how they are published: digests,
// counts, usage dates, unknown fields, exact twins, and whether two rows have one key. It holds none of the records.
type survey struct {
	stream  *schemas.Stream
	options record.Options
	decoder *record.Decoder
	row     *record.Row
	twins   *record.Twins
	keys    *record.Twins // of natural keys, if the stream has a key; nil otherwise
	rejects rejects

	seq         int64
	pages       int64
	same        int64 // rows of a list that have the key of one before, or its content if there is no key; known once finished
	outside     int64 // events that are left out, since they belong to another window
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
	var keys *record.Twins
	if len(stream.Key) > 0 {
		if keys, err = record.NewTwins(dir); err != nil {
			return nil, errors.Join(err, twins.Close())
		}
	}
	surveying := options
	surveying.Survey = true
	return &survey{
		stream: stream, options: options, decoder: record.NewDecoder(stream, surveying), row: record.NewRow(stream), twins: twins, keys: keys,
		rejects: rejects{dir: dir}, usageDates: map[Date]int64{}, reasons: map[string]int64{},
	}, nil
}

func (s *survey) close() error {
	err := errors.Join(s.twins.Close(), s.rejects.close())
	if s.keys != nil {
		err = errors.Join(err, s.keys.Close())
	}
	return err
}

// add surveys the next page.
func (s *survey) add(p Page) error {
	s.pages++
	if err := tellAsked(s.stream, s.decoder, p); err != nil {
		return fmt.Errorf("page %d: %w", s.pages, err)
	}
	position := 0
	for element := range elements(s.stream, p.Data) {
		position++
		if err := s.addElement(element, position); err != nil {
			return err
		}
		s.seq++
	}
	return nil
}

func (s *survey) addElement(element []byte, position int) error {
	if reject := s.decoder.Decode(element, s.row); reject != nil {
		s.quarantined.Add(reject.RawHash)
		s.reasons[reject.Reason]++
		if s.example == "" {
			s.example = fmt.Sprintf("page %d, record %d: %s %s: %s", s.pages, position, reject.Reason, reject.Field, reject.Detail)
		}
		if err := s.rejects.add(s.seq, Rejected{Reject: *reject, Page: int(s.pages), Position: position, Raw: element}); err != nil {
			return err
		}
		return s.twins.Add(s.seq, reject.RawHash)
	}
	if s.row.Outside {
		s.outside++
		return nil
	}
	s.records.Add(s.row.Hash)
	s.usageDates[s.row.UsageDate]++
	if s.keys != nil {
		if err := s.keys.Add(s.seq, s.row.NaturalKey); err != nil {
			return err
		}
	}
	return s.twins.Add(s.seq, s.row.Hash)
}

// tellAsked tells the decoder what p was asked for. Only the markers of lists say so.
func tellAsked(stream *schemas.Stream, decoder *record.Decoder, p Page) error {
	if !stream.IsList() {
		return nil
	}
	values, err := url.ParseQuery(p.Asked)
	if err != nil {
		return fmt.Errorf("read the marker %q: %w", p.Asked, err)
	}
	return decoder.Asked(values)
}

// elements returns the records in a page's data: the elements of an array, or the one record.
func elements(stream *schemas.Stream, data []byte) iter.Seq[[]byte] {
	data = bytes.TrimLeft(data, " \n\t\r")
	switch {
	case len(data) == 0, !stream.Whole() && string(data) == "null":
		return func(func([]byte) bool) {}
	case !stream.Whole() && data[0] == '[':
		return record.Elements(data)
	}
	return func(yield func([]byte) bool) { yield(data) }
}

// finish numbers the twins. After it the publication can be made, and pages can be passed over again. If two rows have one key, the list
// may have moved while it was read: a row went to the next page and stands twice, and another to the page before and stands nowhere, with
// totals that agree. The error is ErrListMoved then. Where rows have no key, exact twins are the sign.
func (s *survey) finish() error {
	if err := s.twins.Finish(); err != nil {
		return err
	}
	if s.keys == nil {
		if s.stream.IsList() && s.stream.List.Paging.Style != "none" {
			s.same = s.twins.Count()
		}
		if s.same > 0 {
			return fmt.Errorf("%d of %d rows are the same as one before: %w", s.same, s.records.Count, ErrListMoved)
		}
		return nil
	}
	if err := s.keys.Finish(); err != nil {
		return err
	}
	if s.same = s.keys.Count(); s.same > 0 {
		return fmt.Errorf("%d of %d rows have the same %s as one before: %w", s.same, s.records.Count, strings.Join(s.stream.Key, ", "), ErrListMoved)
	}
	return nil
}

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
	return &QuarantineError{Stream: s.stream.Name, Window: w, Quarantined: bad, Total: total, Example: s.example + " (" + strings.Join(reasons, ", ") + ")"}
}

// report fills in what r says of the records.
func (s *survey) report(r *Result) {
	r.Pages, r.Records, r.Quarantined, r.Outside, r.Same, r.Unknown = s.pages, s.records.Count, s.quarantined.Count, s.outside, s.same, s.decoder.Unknown()
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

// rows decodes the pages again, now with every twin's ordinal, and yields what is neither a reject nor outside.
func (s *survey) rows(pages iter.Seq2[Page, error], yield func(*record.Row, error) bool) {
	decoder, row, ordinals := record.NewDecoder(s.stream, s.options), record.NewRow(s.stream), s.twins.Pass()
	seq := int64(0)
	for p, err := range pages {
		if err != nil {
			yield(nil, err)
			return
		}
		if err := tellAsked(s.stream, decoder, p); err != nil {
			yield(nil, err)
			return
		}
		for element := range elements(s.stream, p.Data) {
			at := seq
			seq++
			if decoder.Decode(element, row) != nil || row.Outside {
				continue // in the survey's rejects, or another window's
			}
			ordinal, err := ordinals.Ordinal(at)
			if err != nil {
				yield(nil, err)
				return
			}
			row.Ordinal = ordinal
			if !yield(row, nil) {
				return
			}
		}
	}
}
