package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/sdr-sync/sdr-sync/failpoint"
	"github.com/sdr-sync/sdr-sync/pipeline"
	"github.com/sdr-sync/sdr-sync/pipeline/record"
)

// copyIn streams items into the binary COPY statement and returns how many rows went in. Encoding overlaps with sending.
func copyIn[T any](ctx context.Context, tx pgx.Tx, statement string, items iter.Seq2[T, error], appendTuple func([]byte, T) ([]byte, error)) (int64, error) {
	failpoint.Hit(failpoint.CopyBegun)
	pr, pw := io.Pipe()
	produced := make(chan error, 1)
	go func() {
		err := pipeline.Guard(func() error { return writeTuples(pw, items, appendTuple) })
		pw.CloseWithError(err) // nil becomes EOF
		produced <- err
	}()
	tag, err := tx.Conn().PgConn().CopyFrom(ctx, pr, statement)
	pr.CloseWithError(errCopyEnded) // lets the producer go if COPY failed first
	if produceErr := <-produced; produceErr != nil && !errors.Is(produceErr, errCopyEnded) {
		return 0, produceErr // the cause; what COPY says of it is an echo
	}
	if err != nil {
		return 0, fmt.Errorf("copy: %w", err)
	}
	failpoint.Hit(failpoint.CopyEnded)
	return tag.RowsAffected(), nil
}

var errCopyEnded = errors.New("copy ended early")

func writeTuples[T any](w io.Writer, items iter.Seq2[T, error], appendTuple func([]byte, T) ([]byte, error)) error {
	const flushAt = 256 << 10
	buf := make([]byte, 0, flushAt+64<<10)
	buf = append(buf, copyHeader...)
	for item, err := range items {
		if err != nil {
			return err
		}
		if buf, err = appendTuple(buf, item); err != nil {
			return err
		}
		if len(buf) >= flushAt {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
			failpoint.Hit(failpoint.CopyMiddle)
		}
	}
	_, err := w.Write(append(buf, copyTrailer...))
	return err
}

// rows runs a query for the codec's columns and yields each row, good until the next one. The binary format is asked for, so nothing
// is parsed from text.
func (c rowCodec) rows(ctx context.Context, tx pgx.Tx, query string, args ...any) iter.Seq2[*record.Row, error] {
	return func(yield func(*record.Row, error) bool) {
		row := c.newRow()
		var arena []byte
		result, err := tx.Query(ctx, query, append([]any{pgx.QueryResultFormats{pgx.BinaryFormatCode}}, args...)...)
		if err != nil {
			yield(nil, fmt.Errorf("read records: %w", err))
			return
		}
		defer result.Close()
		for result.Next() {
			if arena, err = c.decode(result.RawValues(), arena, row); err != nil {
				yield(nil, fmt.Errorf("%w: %w", errUndecodable, err))
				return
			}
			if !yield(row, nil) {
				return
			}
		}
		if err := result.Err(); err != nil {
			yield(nil, fmt.Errorf("read records: %w", err))
		}
	}
}

// errUndecodable says that a row holds what nothing writes there, such as NaN or an infinite time.
var errUndecodable = errors.New("read records")

func isConnectionLoss(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNREFUSED)
}
