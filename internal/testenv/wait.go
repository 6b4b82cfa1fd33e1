package testenv

import "time"

// patience is how long Eventually waits: a loaded machine is late, and only a test
// that fails waits for all of it.
const patience = 15 * time.Second

// Check ends the test at once if err is one.
func Check(tb TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%v", err)
	}
}

// Eventually waits until holds does, and fails the test if that takes too long.
func Eventually(tb TB, what string, holds func() bool) {
	tb.Helper()
	Within(tb, patience, what, holds)
}

// Within is Eventually where how long it may take is a part of the promise.
func Within(tb TB, limit time.Duration, what string, holds func() bool) {
	tb.Helper()
	for began := time.Now(); !holds(); time.Sleep(time.Millisecond) {
		if time.Since(began) > limit {
			tb.Fatalf("not within %v: %s", limit, what)
			return
		}
	}
}
