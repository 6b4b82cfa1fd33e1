package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Socket is a unix socket for one program. On Linux the kernel says which user connected
// (SO_PEERCRED, unix(7)), and others than those listed are refused, root too. Elsewhere the
// permissions of the file decide alone, and no more than its owner and group can have any.
type Socket struct {
	Path string // absolute
	// Mode is that of the file: to connect takes the permission to write (unix(7)). 0: 0600,
	// or 0666 where UIDs has others than the user that Sallyport runs as.
	Mode fs.FileMode
	// UIDs are who may connect beside the user that Sallyport runs as, unless that is root.
	UIDs []int
}

const (
	lockedFor  = 5 * time.Second // how long another process that opens a socket there is waited for
	probedFor  = 2 * time.Second // how long a socket that is there may take to accept
	onlyOwner  = fs.FileMode(0o600)
	everybody  = fs.FileMode(0o666)
	ofStranger = fs.FileMode(0o007)
)

// allowed are the users who may connect.
func (s *Socket) allowed() []int {
	uids := slices.Clone(s.UIDs)
	if own := os.Geteuid(); own > 0 && !slices.Contains(uids, own) {
		uids = append(uids, own)
	}
	return uids
}

func (s *Socket) mode() fs.FileMode {
	others := slices.ContainsFunc(s.allowed(), func(uid int) bool { return uid != os.Geteuid() })
	switch {
	case s.Mode != 0:
		return s.Mode.Perm()
	case others && peersAreKnown:
		return everybody
	}
	return onlyOwner
}

// listen opens the socket that key of the configuration names. What a process that is gone
// left there is removed; a socket that somebody serves is not, and nothing else is.
func (s *Socket) listen(ctx context.Context, key string, log *slog.Logger) (*socketListener, error) {
	if err := s.judge(); err != nil {
		return nil, fmt.Errorf("cannot listen on %s (%s): %w", s.Path, key, err)
	}
	unlock, err := lockDirectory(ctx, filepath.Dir(s.Path))
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s (%s): its directory: %w", s.Path, key, err)
	}
	defer unlock()
	if err := removeStale(ctx, s.Path); err != nil {
		return nil, fmt.Errorf("cannot listen on %s (%s): %w", s.Path, key, err)
	}
	l, err := s.bind(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s (%s): %w", s.Path, key, err)
	}
	l.log, l.key = log, key
	return l, nil
}

func (s *Socket) judge() error {
	switch {
	case !filepath.IsAbs(s.Path):
		return errors.New("the path of a socket has to be absolute")
	case peersAreKnown && len(s.allowed()) == 0:
		return errors.New("nobody may connect: Sallyport runs as root, which counts only where it is listed; " +
			"list the uid of the app")
	case !peersAreKnown && s.mode()&ofStranger != 0:
		return errors.New("this system does not say who connects, so the mode may give others nothing")
	}
	return nil
}

// removeStale removes a socket that nobody serves. The directory is locked.
func removeStale(ctx context.Context, path string) error {
	is, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case is.Mode().Type() != fs.ModeSocket:
		return errors.New("what is there is no socket; it is left alone")
	}
	c, err := (&net.Dialer{Timeout: probedFor}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = c.Close()
		return errors.New("another program serves it; stop that, or change the path")
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("a socket is there, and it cannot be told whether somebody serves it: %w", err)
	}
	return os.Remove(path)
}

func (s *Socket) bind(ctx context.Context) (*socketListener, error) {
	mode := s.mode()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return presetMode(c, mode) }}
	on, err := lc.Listen(ctx, "unix", s.Path)
	switch {
	case errors.Is(err, syscall.EINVAL):
		return nil, errors.New("the path is too long for a socket; 100 bytes work everywhere")
	case err != nil:
		return nil, err
	}
	l := &socketListener{UnixListener: on.(*net.UnixListener), path: s.Path, allowed: s.allowed()}
	l.SetUnlinkOnClose(false) // what is there at the end may be another one's
	if l.made, err = os.Lstat(s.Path); err == nil {
		err = os.Chmod(s.Path, mode) // what umask took away
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// socketListener accepts who may connect. It is a unix socket, and removes it at its end.
type socketListener struct {
	*net.UnixListener
	path     string
	made     fs.FileInfo
	allowed  []int
	key      string
	log      *slog.Logger
	logLimit rateLimit
}

// Accept implements net.Listener. Who may not connect is closed without an answer.
func (l *socketListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if errors.Is(err, errors.ErrUnsupported) || err == nil && slices.Contains(l.allowed, uid) {
			return socketConn{c}, nil
		}
		_ = c.Close()
		l.refused(uid, err)
	}
}

func (l *socketListener) refused(uid int, err error) {
	unlogged, ok := l.logLimit.allow("")
	if !ok {
		return
	}
	who := strconv.Itoa(uid)
	if err != nil {
		who = err.Error()
	}
	l.log.Warn("a connection was refused: its user may not use this socket", "listener", l.key, "socket", l.path,
		"uid", who, "suppressed", unlogged)
}

// remove takes the socket out of its directory, if it is still there: so nobody comes any
// more, and who waits in the queue is accepted.
func (l *socketListener) remove() {
	if is, err := os.Lstat(l.path); err == nil && os.SameFile(is, l.made) {
		_ = os.Remove(l.path) // one that stays is removed at the next start
	}
}

// Close implements net.Listener.
func (l *socketListener) Close() error {
	l.remove()
	return l.UnixListener.Close()
}

// socketConn is a connection over a unix socket. Its ReadFrom is that of a stream.
type socketConn struct{ *net.UnixConn }

// ReadFrom implements io.ReaderFrom.
func (c socketConn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c.UnixConn}, r)
}
