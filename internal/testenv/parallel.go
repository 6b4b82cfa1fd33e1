package testenv

import (
	"flag"
	"runtime"
	"strconv"
)

// WaitTogether lets twice as many tests run at once as there are processors,
// unless the command line says how many. It is for a TestMain of a package whose
// parallel tests wait on loopback most of their time, where a clock cannot be
// moved: two processors with two tests on them do nothing for half of it. With many
// more those tests come late that measure time.
func WaitTogether() {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
	if !told {
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))) // a number is a number
	}
}
