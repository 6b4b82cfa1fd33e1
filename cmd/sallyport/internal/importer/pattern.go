package importer

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// reach is a set of paths that both a pattern and a route can say.
type reach struct {
	text string
	// below: all that begins with text, which ends in a slash. Else text alone.
	below bool
	more  bool // with below: text itself is not in it
}

// open is a rule of skip_auth_routes: who asks need not be signed in there.
type open struct {
	reach
	methods []string // nil: any
	from    *setting
}

// parseSkip splits what skip_auth_routes has: METHOD=pattern, METHOD!=pattern, or a pattern.
func parseSkip(v string) (method, pattern string, negated bool) {
	negated = strings.Contains(v, "!=") // wherever it stands, as there
	at := regexp.MustCompile("!?=").FindStringIndex(v)
	if at == nil {
		return "", v, negated
	}
	return strings.ToUpper(v[:at[0]]), v[at[1]:], negated
}

// errNegated is for what opens all but a few paths.
var errNegated = errors.New("opens every path but those: write routes for what is open")

// openPaths says which paths a pattern of oauth2-proxy matches, if routes can say that exactly.
// The pattern is looked for anywhere in a path, unless it is anchored.
func openPaths(pattern string) ([]reach, error) {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, errors.New("is no regular expression")
	}
	found, err := walk(tree.Simplify(), []trail{{}})
	if err != nil {
		return nil, err
	}
	var all []reach
	for _, t := range found {
		r, err := t.reach()
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return joined(all)
}

// trail is one way through a pattern: what it demands of a path, from its beginning.
type trail struct {
	text     string
	anchored bool
	ended    bool // nothing may follow
	rest     bool // anything may follow, and did
	restMore bool // at least one sign follows
}

// maxTrails bounds what alternatives of alternatives make.
const maxTrails = 64

var errTooMany = fmt.Errorf("has more than %d alternatives: write routes", maxTrails)

const noPathSays = "has %s, which no path of a route says: paths are literal, and cover all below them"

// walk follows a pattern along each trail.
func walk(re *syntax.Regexp, trails []trail) ([]trail, error) {
	if len(trails) > maxTrails {
		return nil, errTooMany
	}
	each := func(step func(t trail) (trail, error)) ([]trail, error) {
		out := make([]trail, 0, len(trails))
		for _, t := range trails {
			t, err := step(t)
			if err != nil {
				return nil, err
			}
			out = append(out, t)
		}
		return out, nil
	}
	switch re.Op {
	case syntax.OpEmptyMatch:
		return trails, nil
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return nil, fmt.Errorf(noPathSays, "letters of either case")
		}
		return each(func(t trail) (trail, error) { return t.literal(string(re.Rune)) })
	case syntax.OpBeginText:
		return each(func(t trail) (trail, error) {
			if t.text != "" || t.rest {
				return t, fmt.Errorf(noPathSays, "^ in its middle")
			}
			t.anchored = true
			return t, nil
		})
	case syntax.OpEndText:
		return each(func(t trail) (trail, error) {
			t.ended = true
			return t, nil
		})
	case syntax.OpStar, syntax.OpPlus:
		if op := re.Sub[0].Op; op != syntax.OpAnyCharNotNL && op != syntax.OpAnyChar {
			return nil, fmt.Errorf(noPathSays, "a repetition")
		}
		return each(func(t trail) (trail, error) {
			if t.ended {
				return t, errors.New("goes on behind $, and matches nothing")
			}
			t.rest, t.restMore = true, t.restMore || re.Op == syntax.OpPlus
			return t, nil
		})
	case syntax.OpQuest:
		with, err := walk(re.Sub[0], trails)
		return append(slices.Clone(trails), with...), err
	case syntax.OpCapture:
		return walk(re.Sub[0], trails)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			var err error
			if trails, err = walk(sub, trails); err != nil {
				return nil, err
			}
		}
		return trails, nil
	case syntax.OpAlternate:
		var all []trail
		for _, sub := range re.Sub {
			some, err := walk(sub, trails)
			if err != nil {
				return nil, err
			}
			if all = append(all, some...); len(all) > maxTrails {
				return nil, errTooMany
			}
		}
		return all, nil
	case syntax.OpCharClass:
		return walkClass(re, trails)
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return nil, fmt.Errorf(noPathSays, `a dot for any sign (\. is a dot)`)
	}
	return nil, fmt.Errorf(noPathSays, "a sign of patterns")
}

// walkClass takes each sign of a small class as an alternative.
func walkClass(re *syntax.Regexp, trails []trail) ([]trail, error) {
	var signs []rune
	for i := 0; i+1 < len(re.Rune); i += 2 {
		for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
			if signs = append(signs, r); len(signs) > 10 {
				return nil, fmt.Errorf(noPathSays, "a class of many signs")
			}
		}
	}
	var all []trail
	for _, r := range signs {
		for _, t := range trails {
			t, err := t.literal(string(r))
			if err != nil {
				return nil, err
			}
			if all = append(all, t); len(all) > maxTrails {
				return nil, errTooMany
			}
		}
	}
	return all, nil
}

func (t trail) literal(s string) (trail, error) {
	switch {
	case t.ended:
		return t, errors.New("goes on behind $, and matches nothing")
	case t.rest:
		return t, fmt.Errorf(noPathSays, "something behind .*")
	}
	t.text += s
	return t, nil
}

// reach is what a trail matches.
func (t trail) reach() (reach, error) {
	switch {
	case t.text == "" && (!t.ended || t.rest), t.text == "/" && !t.ended && !t.rest,
		t.text == "/" && t.anchored && t.rest && !t.restMore:
		// Every path begins with a slash, so each has one: "/", "^/" and ".*" match all.
		return reach{text: "/", below: true}, nil
	case !t.anchored:
		return reach{}, errors.New("matches anywhere in a path, as it does not begin with ^: no route says that")
	case t.text == "":
		return reach{}, errors.New("matches no path")
	case !strings.HasPrefix(t.text, "/"):
		return reach{}, errors.New("matches no path: all begin with a slash")
	case t.ended && !t.rest:
		return reach{text: t.text}, nil
	case !strings.HasSuffix(t.text, "/"):
		return reach{}, fmt.Errorf("matches %s and what begins so, such as %sx: no route says that; `^%s(/|$)` is "+
			"the path and all below it, `^%[1]s$` the path alone", t.text, t.text, regexp.QuoteMeta(t.text))
	}
	return reach{text: t.text, below: true, more: t.restMore}, nil
}

// joined leaves out what another part of the set covers.
func joined(all []reach) ([]reach, error) {
	kept := slices.DeleteFunc(slices.Clone(all), func(r reach) bool {
		return slices.ContainsFunc(all, func(o reach) bool { return o != r && o.below && o.covers(r) })
	})
	return kept, nil
}

// covers reports whether all of o is in r.
func (r reach) covers(o reach) bool {
	if !r.below {
		return !o.below && r.text == o.text
	}
	if r.more && o.text == r.text {
		return o.below && o.more
	}
	return strings.HasPrefix(o.text, r.text)
}

// coversPath reports whether one path is in r.
func (r reach) coversPath(path string) bool { return r.covers(reach{text: path}) }
