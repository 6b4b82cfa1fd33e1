package testenv

import (
	"flag"
	"runtime"
	"strconv"
)

// WaitTogether lets twice as many tests run at once as there are processors, unless the
// command line says how many. It is for the TestMain of a package whose parallel tests spend
// most of their time waiting on loopback, where a clock cannot be moved: with one test for
// each processor, processors would be idle half of the time. With many more, tests that
// measure time would be delayed.
func WaitTogether() {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
	if !told {
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))) // cannot fail: it is a number
	}
}
