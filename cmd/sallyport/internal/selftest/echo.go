package selftest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Area is the path below which the echo answers.
const Area = "/.sallyport-selftest"

// arrival is a request as it came to the place of the app.
type arrival struct {
	line   string   // the request line
	header []string // its lines, with their spelling
}

// get are the values of the header called name, in the one right spelling.
func (a *arrival) get(name string) (values []string) {
	for _, line := range a.header {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			values = append(values, textproto.TrimString(v))
		}
	}
	return values
}

const (
	maxEchoHeader = 1 << 20
	maxEchoBody   = 1 << 20
	maxEchoConns  = 64
)

// echo stands in the place of the app. It keeps the requests whose target has the nonce
// of this run, and answers no others. What it kept ends with the run.
type echo struct {
	listener net.Listener
	nonce    string
	proof    string // the body of its answers: a front cannot know it
	timeout  time.Duration
	conns    chan struct{}
	serving  sync.WaitGroup

	mu   sync.Mutex // guards kept and open
	kept []arrival
	open map[net.Conn]bool // nil: stopped
}

func startEcho(l net.Listener, nonce string, timeout time.Duration) *echo {
	e := &echo{listener: l, nonce: nonce, proof: random(16), timeout: timeout, conns: make(chan struct{}, maxEchoConns),
		open: map[net.Conn]bool{}}
	e.serving.Go(e.serve)
	return e
}

func (e *echo) stop() {
	_ = e.listener.Close()
	e.mu.Lock()
	for conn := range e.open {
		_ = conn.Close()
	}
	e.open = nil
	e.mu.Unlock()
	e.serving.Wait()
}

func (e *echo) serve() {
	for {
		conn, err := e.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of files, for example. Without a pause this would take the processor from
			// those whose end gives some back.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if !e.track(conn, true) {
			_ = conn.Close()
			return
		}
		e.serving.Go(func() {
			e.conns <- struct{}{}
			defer func() { <-e.conns }()
			defer e.track(conn, false)
			defer conn.Close()
			e.answer(conn)
		})
	}
}

// track notes whether a connection is open, and reports whether it may be.
func (e *echo) track(conn net.Conn, open bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open == nil {
		return false
	}
	if open {
		e.open[conn] = true
	} else {
		delete(e.open, conn)
	}
	return true
}

// answer reads one request, and ends the connection with its answer: what a front sends
// on it next would be told apart from a body by us only.
func (e *echo) answer(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(e.timeout))
	in := bufio.NewReader(io.LimitReader(conn, maxEchoHeader+maxEchoBody))
	var a arrival
	for total := 0; ; {
		line, err := in.ReadString('\n')
		if total += len(line); err != nil || total > maxEchoHeader {
			return
		}
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			break
		}
		if a.line == "" {
			a.line = line
		} else {
			a.header = append(a.header, line)
		}
	}
	status, body := "404 Not Found", ""
	if strings.Contains(a.line, e.nonce) {
		status, body = "200 OK", e.proof
		e.mu.Lock()
		e.kept = append(e.kept, a)
		e.mu.Unlock()
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 "+status+"\r\nContent-Type: text/plain\r\nContent-Length: "+
		strconv.Itoa(len(body))+"\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"+body); err != nil {
		return
	}
	// A body that was not read would reset the connection, and the answer with it.
	if tcp, ok := conn.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, in)
	}
}

// arrivals are the requests so far whose target has an id.
func (e *echo) arrivals(id string) (found []arrival) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.kept {
		if strings.Contains(a.line, id) {
			found = append(found, a)
		}
	}
	return found
}
