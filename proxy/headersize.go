package proxy

import "net/http"

// headerSize is how many bytes the header of r has in HTTP/1.1, with the request line. Over HTTP/2
// they are fewer, as a rule, and count alike: the app is sent them over HTTP/1.1.
func headerSize(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Host) + len("  HTTP/1.1\r\nHost: \r\n\r\n")
	for name, lines := range r.Header {
		n += fieldSize(name, lines)
	}
	return n
}

func fieldSize(name string, lines []string) (n int) {
	for _, line := range lines {
		n += len(name) + len(line) + len(": \r\n")
	}
	return n
}

// largestField is the name of the field that has the most bytes in all its lines, for the log. It
// never is a value.
func largestField(r *http.Request) (largest string) {
	most := 0
	for name, lines := range r.Header {
		if n := fieldSize(name, lines); n > most {
			largest, most = name, n
		}
	}
	return largest[:min(len(largest), 64)]
}
