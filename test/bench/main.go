package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	switch {
	case len(args) == 5 && args[0] == "bare":
		return runBare(args[1], args[2], args[3], args[4])
	case len(args) > 0 && (args[0] == "rounds" || args[0] == "scaling"):
		c, err := moveToLoad()
		if err != nil {
			return err
		}
		o, err := parse(args)
		if err != nil {
			return err
		}
		o.progress = os.Stderr
		if args[0] == "scaling" {
			return scaling(c, o)
		}
		return rounds(c, o)
	}
	return errUsage
}

// options are what can be asked for.
type options struct {
	rounds      int
	round       time.Duration
	connections int
	size        int
	upstream    string
	peers       peers
	binary      string // of sallyport
	module      string // the folder of the product
	document    string
	charts      string // the folder for charts
	dir         string // for what is thrown away
	points      int    // of each curve; 0: all
	rest        bool   // only the memory of processes at rest
	only        string // names of curves; all if empty
	progress    io.Writer
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("bench "+args[0], flag.ContinueOnError)
	rounds, round := 7, 3*time.Second
	if args[0] == "scaling" {
		rounds, round = 3, time.Second
		f.StringVar(&o.only, "only", "", "names of curves, with commas between; the others stay as they are")
		f.IntVar(&o.points, "points", 0, "only so many points of each curve; all if left out")
	} else {
		f.BoolVar(&o.rest, "rest", false, "only the memory of processes at rest; the other tables stay as they are")
	}
	f.IntVar(&o.rounds, "rounds", rounds, "how often each is measured")
	f.DurationVar(&o.round, "round", round, "how long each time")
	f.IntVar(&o.connections, "connections", 64, "keep-alive connections")
	f.IntVar(&o.size, "bytes", 1024, "length of an answer")
	f.StringVar(&o.upstream, "upstream", "127.0.0.1:0", "where the upstream listens; peers pass requests on to it")
	f.Var(&o.peers, "peer", "`name=N,url=U,cookie=C` of a proxy that runs already; the cookie may be left out")
	f.StringVar(&o.binary, "binary", "../../bin/sallyport", "the sallyport to measure")
	f.StringVar(&o.module, "module", "../..", "the folder of the clone")
	f.StringVar(&o.document, "document", "../../docs/performance.md", "where the tables are written")
	f.StringVar(&o.charts, "charts", "../../docs/performance", "the folder of the charts")
	if err := f.Parse(args[1:]); err != nil {
		return nil, err
	}
	if f.NArg() > 0 || o.rounds < 1 || o.round <= 0 || o.connections < 1 || o.size < 0 {
		return nil, errUsage
	}
	return o, nil
}

// peers are those of flags and of the environment.
type peers []peer

func (p *peers) String() string { return "" }

// Set takes one: flag.Value.
func (p *peers) Set(text string) error {
	var one peer
	for field := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "name":
			one.name = value
		case "url":
			rest, ok := strings.CutPrefix(value, "http://")
			if !ok {
				return errors.New("the URL of a peer begins with http://")
			}
			var path string
			one.address, path, _ = strings.Cut(rest, "/")
			one.path = "/" + path
		case "cookie":
			one.cookie = value
		default:
			return fmt.Errorf("%q is not known of a peer", name)
		}
	}
	if one.name == "" || one.address == "" {
		return errors.New("a peer has a name and a url")
	}
	*p = append(*p, one)
	return nil
}

// prepare makes what every run needs: a folder that is thrown away, and room for sockets.
func (o *options) prepare() (end func(), err error) {
	o.dir, err = os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return nil, err
	}
	end = func() { _ = os.RemoveAll(o.dir) }
	// Ten thousand WebSockets are 20,000 sockets here and 20,000 there. Who may not raise the
	// limit gets fewer (mostSockets).
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 65536, Max: 65536})
	return end, nil
}

// rounds is `make bench`.
func rounds(c cores, o *options) error {
	end, err := o.prepare()
	if err != nil {
		return err
	}
	defer end()
	l, err := newLoop()
	if err != nil {
		return err
	}
	defer l.close()
	f := &field{cores: c, o: o, loop: l}
	defer f.stop()
	if err := f.start(); err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // what starting has left to do
	idle, err := idleMemory(f.subjects)
	if err != nil {
		return err
	}
	if o.rest {
		return reportRest(o, c, idle)
	}
	if err := runRounds(l, f.subjects, o.rounds, o.round, o.progress); err != nil {
		return err
	}
	half, err := runHalfLoad(l, f.halfLoad(), f.direct, min(o.rounds, 3), o.round)
	if err != nil {
		return err
	}
	return report(o, c, l.others, f.subjects, half, idle)
}
