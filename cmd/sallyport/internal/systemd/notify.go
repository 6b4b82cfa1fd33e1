// Package systemd tells the service manager how the process fares, as sd_notify(3)
// describes it: that it serves, that it reads its configuration again, that it stops.
//
// It owns the socket's name and the form of the messages. Where no service manager
// asked to be told, it tells nobody. What is told, and when, is its callers' business.
package systemd

import (
	"net"
	"strconv"
	"strings"
	"time"
)

// Notifier tells the service manager. A nil Notifier tells nobody.
type Notifier struct {
	address *net.UnixAddr
	failed  func(error)
}

// NewNotifier takes the value of NOTIFY_SOCKET; "" is nobody, and a name that
// begins with @ is in the abstract namespace. What cannot be sent is
// told to failed.
func NewNotifier(socket string, failed func(error)) *Notifier {
	if socket == "" {
		return nil
	}
	return &Notifier{&net.UnixAddr{Name: socket, Net: "unixgram"}, failed}
}

// Ready says that the process serves, or serves again after Reloading. status is for
// people.
func (n *Notifier) Ready(status string) { n.send("READY=1", "STATUS="+status) }

// Reloading says that the configuration is being read. The time lets the service
// manager see that this is the answer to its signal, so it is in the same message.
func (n *Notifier) Reloading() {
	n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonic().Microseconds(), 10))
}

// Stopping says that the process is about to end.
func (n *Notifier) Stopping() { n.send("STOPPING=1") }

const sendTimeout = time.Second // the service manager's queue may be full

func (n *Notifier) send(lines ...string) {
	if n == nil {
		return
	}
	for i, line := range lines { // each is one line, whatever is in it
		lines[i] = strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, line)
	}
	if err := n.write(strings.Join(lines, "\n")); err != nil {
		n.failed(err)
	}
}

func (n *Notifier) write(message string) error {
	conn, err := net.DialUnix("unixgram", nil, n.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(message))
	return err
}
