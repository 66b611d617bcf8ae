package chaos

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// proxy stands between the program and Postgres. It swallows the answer to the n-th COMMIT and cuts that connection: the transaction took
// place, and the program can't know.
type proxy struct {
	url      string // for the program
	listener net.Listener
	network  string
	address  string // of the server
	commits  atomic.Int64
	cut      int64 // number of the COMMIT
	done     atomic.Bool
	work     sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

// newProxy listens beside the server: on a socket in a folder of its own, or on this machine's loopback.
func newProxy(w *world, cut int) (*proxy, error) {
	u, err := url.Parse(w.server.url(w.scenario.login(), w.database))
	if err != nil {
		return nil, err
	}
	p := &proxy{cut: int64(cut)}
	query := u.Query()
	if folder := query.Get("host"); folder != "" {
		mine, err := os.MkdirTemp("", "sdr-sync-proxy-") // a socket's path must be short
		if err != nil {
			return nil, err
		}
		w.closers = append(w.closers, func() error { return os.RemoveAll(mine) })
		name := ".s.PGSQL." + query.Get("port")
		p.network, p.address = "unix", filepath.Join(folder, name)
		if p.listener, err = net.Listen("unix", filepath.Join(mine, name)); err != nil {
			return nil, err
		}
		query.Set("host", mine)
		u.RawQuery = query.Encode()
	} else {
		port := u.Port()
		if port == "" {
			port = "5432"
		}
		p.network, p.address = "tcp", net.JoinHostPort(u.Hostname(), port)
		if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		u.Host = p.listener.Addr().String()
	}
	p.url = u.String()
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		p.accept()
	}()
	return p, nil
}

func (p *proxy) hasCut() bool { return p.done.Load() }

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
}

func (p *proxy) accept() {
	for {
		program, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(p.network, p.address)
		if err != nil {
			_ = program.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, program, server)
		p.mu.Unlock()
		p.work.Add(2)
		go func() {
			defer p.work.Done()
			_, _ = io.Copy(server, program)
			_ = server.Close()
		}()
		go func() {
			defer p.work.Done()
			p.answers(program, server)
			_ = program.Close()
			_ = server.Close()
		}()
	}
}

// committed is what the server says when a COMMIT took place: CommandComplete with its tag (PostgreSQL, Message Formats).
var committed = []byte("C\x00\x00\x00\x0bCOMMIT\x00")

// answers passes on what the server says, up to the answer that is to be lost. COMMIT's answer comes alone, so it is never split over two
// reads in practice; if it were, the cut would just not be met.
func (p *proxy) answers(program, server net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := server.Read(buffer)
		if bytes.Contains(buffer[:n], committed) && p.commits.Add(1) == p.cut {
			p.done.Store(true)
			return
		}
		if n > 0 {
			if _, err := program.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
