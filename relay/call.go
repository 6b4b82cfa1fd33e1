package relay

import (
	"math"
	"net/http"
	"strconv"
	"time"
)

// isGRPC reports whether r is a gRPC call.
func isGRPC(r *http.Request) bool {
	const kind = "application/grpc"
	t := r.Header["Content-Type"]
	return len(t) == 1 && len(t[0]) >= len(kind) && t[0][:len(kind)] == kind
}

// callTime is how long a gRPC call may take, as its client says (grpc-timeout, "gRPC
// over HTTP2", Requests: at most eight digits and a unit); 0 if it says nothing of use.
func callTime(r *http.Request) time.Duration {
	t := r.Header["Grpc-Timeout"]
	if len(t) != 1 || !isGRPC(r) || r.ProtoMajor != 2 {
		return 0
	}
	digits := len(t[0]) - 1
	if digits < 1 || digits > 8 {
		return 0
	}
	n, err := strconv.ParseUint(t[0][:digits], 10, 32)
	if err != nil {
		return 0
	}
	unit := unitOf(t[0][digits])
	return min(time.Duration(n), math.MaxInt64/max(unit, 1)) * unit
}

// unitOf is a TimeoutUnit, 0 if there is none of this name.
func unitOf(name byte) time.Duration {
	switch name {
	case 'H':
		return time.Hour
	case 'M':
		return time.Minute
	case 'S':
		return time.Second
	case 'm':
		return time.Millisecond
	case 'u':
		return time.Microsecond
	case 'n':
		return time.Nanosecond
	}
	return 0
}

// callIsOver reports whether the time that the client has given its call is over. The
// app has been counting for a shorter time than this side, and the client for a longer
// one: when the app has ended the call for it, it is over here too.
func (x *exchange) callIsOver() bool {
	return x.callTime > 0 && time.Since(x.watch.begun) >= x.callTime
}

// SetDeadlineExceeded writes the gRPC status that is the answer to ErrCallOver. Any other
// end is a fault to the client (INTERNAL, UNAVAILABLE), after which it may call again.
// Prefix is http.TrailerPrefix if an answer has begun.
func SetDeadlineExceeded(h http.Header, prefix string) {
	h[prefix+"Grpc-Status"] = []string{"4"} // DEADLINE_EXCEEDED
	h[prefix+"Grpc-Message"] = []string{"the time given to this call is over"}
}
