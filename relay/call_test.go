package relay

import (
	"net/http"
	"testing"
	"time"
)

func TestTheTimeOfACallIsReadAsGRPCWritesIt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"2H": 2 * time.Hour, "3M": 3 * time.Minute, "4S": 4 * time.Second, "5m": 5 * time.Millisecond,
		"6u": 6 * time.Microsecond, "7n": 7, "0S": 0, "99999999H": 1<<63 - 1,
		"": 0, "S": 0, "1": 0, "-1S": 0, "+1S": 0, "1.5S": 0, "1s": 0, "1 S": 0, "123456789S": 0, "1SS": 0,
	} {
		r := &http.Request{ProtoMajor: 2, Header: http.Header{
			"Content-Type": {"application/grpc+proto"}, "Grpc-Timeout": {text}}}
		if got := callTime(r); got != want && (text != "99999999H" || got < want-time.Duration(time.Hour)) {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
	for name, r := range map[string]*http.Request{
		"not gRPC": {ProtoMajor: 2, Header: http.Header{"Grpc-Timeout": {"1S"}}},
		"twice": {ProtoMajor: 2, Header: http.Header{
			"Content-Type": {"application/grpc"}, "Grpc-Timeout": {"1S", "1S"}}},
		"over HTTP/1.1": {ProtoMajor: 1, Header: http.Header{
			"Content-Type": {"application/grpc"}, "Grpc-Timeout": {"1S"}}},
	} {
		if got := callTime(r); got != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}
