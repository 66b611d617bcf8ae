package sandbox

// Lists that change while a client pages through them.

// listing is how far the rows of a list have moved under a client that is paging. They are back where they belong when the next
// client begins with the first row. The subscriptions need none of it: what befalls them, befalls the rows themselves.
type listing struct {
	gone   int // rows gone from the front
	turned int // rows gone from the front to the end; from the end to the front if negative
}

// sliceOf returns the rows [from, from+size) of a list and how many rows it has, both as the fault that hit this call, and those
// before it, make them. No row can be made up here, so the row that joins is the one that left: FaultSkip moves the first row to the
// end, FaultRepeat the last one to the front.
func sliceOf[T any](s *Server, c *call, e Endpoint, rows []T, from, size int) (page []T, total int) {
	s.mu.Lock()
	l := s.listings[e]
	if from == 0 {
		l = listing{}
	}
	switch c.fault {
	case FaultShift:
		l.gone++
	case FaultSkip:
		l.turned++
	case FaultRepeat:
		l.turned--
	}
	s.listings[e] = l
	s.mu.Unlock()

	rows = rows[min(l.gone, len(rows)):]
	if len(rows) > 0 && l.turned != 0 {
		first := (l.turned%len(rows) + len(rows)) % len(rows)
		rows = append(rows[first:len(rows):len(rows)], rows[:first]...)
	}
	return cutOf(c, rows, from, size)
}

// cutOf is sliceOf for rows that have moved already.
func cutOf[T any](c *call, rows []T, from, size int) (page []T, total int) {
	switch c.fault {
	case FaultNoRows:
		rows = nil
	case FaultHalf:
		rows = rows[:len(rows)/2]
	}
	from = min(from, len(rows))
	return append([]T{}, rows[from:min(from+size, len(rows))]...), len(rows)
}
