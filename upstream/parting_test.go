package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// reader reads all that a peer gets, unless it is deaf.
type reader struct {
	mu  sync.Mutex
	got []byte
}

func (r *reader) run(from io.Reader) {
	buf := make([]byte, 1000)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		r.got = append(r.got, buf[:n]...)
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (r *reader) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// parting is a tunnel that must end, told as what its peers do before and after that.
type parting struct {
	appBefore, clientBefore []byte
	appAfter, clientAfter   []byte
	appLeaves, clientLeaves bool // after that
	clientDeaf, appDeaf     bool

	client []byte // what the client got
	app    []byte // what the app got, but for the mask and payload of a close frame of ours
	told   bool   // the app got a close frame of ours
	took   time.Duration
	err    error
}

var errOver = errors.New("the session is over")

// play is for a bubble: time is exact, and a pipe holds nothing.
func (p *parting) play(t *testing.T, end func(*Tunnels, context.CancelCauseFunc)) {
	t.Helper()
	var ts Tunnels
	ctx, cancel := context.WithCancelCause(t.Context())
	client, inner := net.Pipe()
	app, outer := net.Pipe()
	done := carry(ctx, &ts, Ends{Client: inner, Upstream: outer})
	var atClient, atApp reader
	if !p.clientDeaf {
		go atClient.run(client)
	}
	if !p.appDeaf {
		go atApp.run(app)
	}
	speak := func(appSays, clientSays []byte) {
		go func() { _, _ = client.Write(clientSays) }()
		go func() { _, _ = app.Write(appSays) }()
		synctest.Wait()
	}
	speak(p.appBefore, p.clientBefore)
	begin := time.Now()
	go end(&ts, cancel)
	synctest.Wait()
	speak(p.appAfter, p.clientAfter)
	if p.appLeaves {
		app.Close()
	}
	if p.clientLeaves {
		client.Close()
	}
	c := <-done
	p.took, p.err = time.Since(begin), c.err
	synctest.Wait()
	if ts.Len() != 0 {
		t.Error("the tunnel is still counted")
	}
	p.client, p.app = atClient.bytes(), atApp.bytes()
	if own := len(CloseFrame{Code: CloseGoingAway}.forServer()); len(p.app) >= own {
		at := len(p.app) - own
		if f := p.app[at:]; f[0] == closing && f[1] == 0x82 && f[2]^f[6] == 0x03 && f[3]^f[7] == 0xE9 {
			p.app, p.told = p.app[:at], true
		}
	}
	client.Close()
	app.Close()
}

func ended1008(_ *Tunnels, cancel context.CancelCauseFunc) { cancel(errOver) }

func join(all ...[]byte) []byte { return bytes.Join(all, nil) }

var farewell = CloseFrame{1008, "signed out"}.forClient()

// The frame that the app is sending comes whole, the next one does not come at all, and
// the close frame stands between, wherever the end falls.
func TestP10_AWebSocketIsClosedBetweenTwoFrames(t *testing.T) {
	next := frame(text, 40, false)
	for name, current := range map[string][]byte{
		"empty":              frame(text, 0, false),
		"short":              frame(text, 125, false),
		"of two bytes":       frame(text, 126, false),
		"of eight bytes":     frame(text, 1<<16, false),
		"compressed":         frame(packed, 10, false),
		"part of a message":  frame(more, 10, false),
		"a ping":             frame(ping, 3, false),
		"the last of a text": join(frame(more, 3, false), frame(final, 3, false)),
	} {
		t.Run(name, func(t *testing.T) {
			for at := range len(current) + 1 {
				if at > 200 && at < len(current)-20 && at != 4096 {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					p := parting{appBefore: current[:at], appAfter: join(current[at:], next),
						clientAfter: frame(closing, 2, true)}
					p.play(t, ended1008)
					whole := current[:0]
					ends, _, _ := boundaries(current, false)
					for _, end := range ends {
						if len(whole) < at {
							whole = current[:end]
						}
					}
					if !bytes.Equal(p.client, join(whole, farewell)) {
						t.Errorf("ended after %d of %d bytes, the client got %d: % x", at, len(current), len(p.client),
							p.client[max(0, len(p.client)-20):])
					}
					if len(p.app) > 0 || !p.told || p.took != 0 || !errors.Is(p.err, errOver) {
						t.Errorf("ended after %d bytes, the app got % x, and a close frame: %v; it took %v, %v", at,
							p.app, p.told, p.took, p.err)
					}
				})
			}
		})
	}
}

// Peers that do not say goodbye, say it twice, lie or hang hold a tunnel for partingTime.
func TestP10_AWebSocketEndsWhateverItsPeersDo(t *testing.T) {
	whole, bye := frame(text, 9, false), frame(closing, 2, true)
	ask, appBye := frame(text, 7, true), frame(closing, 2, false)
	huge := []byte{0x82, 127, 0x40, 0, 0, 0, 0, 0, 0, 0, 'x'}
	for name, tt := range map[string]struct {
		parting
		client, app []byte
		told        bool
		took        time.Duration
	}{
		"the client does not answer": {parting{appBefore: whole}, join(whole, farewell), nil, true, partingTime},
		"the client does not read": {parting{appBefore: whole, clientDeaf: true, clientAfter: bye}, nil, nil, false,
			partingTime},
		"the client talks on": {parting{clientBefore: ask, clientAfter: join(ask, ask)}, farewell, ask, true,
			partingTime},
		"the client talks on and then says goodbye": {parting{clientAfter: join(ask, bye)}, farewell, nil, true, 0},
		"the client leaves":                         {parting{clientLeaves: true}, farewell, nil, true, 0},
		"the client was in the middle of a frame": {parting{clientBefore: ask[:8], clientAfter: join(ask[8:], bye)},
			farewell, ask[:8], false, 0},
		"the client said goodbye first": {parting{clientBefore: bye}, farewell, bye, false, 0},
		"the client speaks nonsense": {parting{clientAfter: []byte("GET / HTTP/1.1\r\n\r\n")}, farewell, nil, true,
			partingTime},
		"both say goodbye at once": {parting{appBefore: whole, appAfter: appBye, clientAfter: bye},
			join(whole, farewell), nil, true, 0},
		"the app said goodbye first": {parting{appBefore: appBye, clientAfter: bye}, appBye, nil, true, 0},
		"the app said goodbye and talks on": {parting{appBefore: appBye, appAfter: whole, clientAfter: bye}, appBye,
			nil, true, 0},
		"both had said goodbye": {parting{appBefore: appBye, clientBefore: bye}, appBye, bye, false, 0},
		"the app does not read": {parting{appDeaf: true, clientBefore: ask, clientAfter: bye}, farewell, nil, false,
			partingTime},
		"the app hangs in a frame": {parting{appBefore: frame(text, 1<<20, false)[:5000], clientAfter: bye},
			frame(text, 1<<20, false)[:5000], nil, false, partingTime},
		"the app lies about a length": {parting{appBefore: huge, appAfter: whole}, join(huge, whole), nil, false,
			partingTime},
		"the app leaves in a frame": {parting{appBefore: whole[:4], appLeaves: true}, whole[:4], nil, false, 0},
		"the app leaves then":       {parting{appLeaves: true, clientAfter: bye}, farewell, nil, true, 0},
		"the app speaks nonsense": {parting{appBefore: []byte("HTTP/1.1 200 OK\r\n")}, []byte("HTTP/1.1 200 OK\r\n"),
			nil, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := tt.parting
				p.play(t, ended1008)
				if !bytes.Equal(p.client, tt.client) {
					t.Errorf("the client got % x, not % x", p.client, tt.client)
				}
				if !bytes.Equal(p.app, tt.app) || p.told != tt.told {
					t.Errorf("the app got % x, not % x, and a close frame: %v", p.app, tt.app, p.told)
				}
				if p.took != tt.took || !errors.Is(p.err, errOver) {
					t.Errorf("it took %v, not %v; %v", p.took, tt.took, p.err)
				}
			})
		})
	}
}

func TestStoppingSaysGoingAwayToBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := parting{appBefore: frame(text, 9, false), clientAfter: frame(closing, 2, true)}
		p.play(t, func(ts *Tunnels, _ context.CancelCauseFunc) { ts.Close(t.Context()) })
		want := join(p.appBefore, CloseFrame{1001, "the server is stopping"}.forClient())
		if !bytes.Equal(p.client, want) || !p.told || p.took != 0 || !errors.Is(p.err, ErrClosed) {
			t.Errorf("the client got % x, the app %v, after %v, %v", p.client, p.told, p.took, p.err)
		}
	})
}

// polite is a connection like TLS: to close it waits for a peer that does not read.
type polite struct{ net.Conn }

func (p polite) NetConn() net.Conn { return p.Conn }
func (p polite) Close() error      { _, _ = p.Conn.Write([]byte("bye")); return p.Conn.Close() }

func TestP10_AWebSocketOverTLSEndsThoughTheClientReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ts Tunnels
		ctx, cancel := context.WithCancelCause(t.Context())
		client, inner := net.Pipe()
		app, outer := net.Pipe()
		done := carry(ctx, &ts, Ends{Client: &Buffered{Conn: polite{inner}}, Upstream: outer})
		go func() { _, _ = app.Write(frame(text, 100, false)[:50]) }() // and nobody reads it
		synctest.Wait()
		begin := time.Now()
		cancel(errOver)
		if c := <-done; time.Since(begin) != partingTime || !errors.Is(c.err, errOver) {
			t.Errorf("it took %v, %v", time.Since(begin), c.err)
		}
		if _, err := app.Read(make([]byte, 1)); err == nil {
			t.Error("the app's connection is open")
		}
		client.Close()
	})
}
