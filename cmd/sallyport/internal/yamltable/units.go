package yamltable

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"
)

// Duration is a time between two bounds.
func Duration(lowest, highest time.Duration) Shape[time.Duration] {
	const form = `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	re := regexp.MustCompile(form)
	want := "a duration such as 90s or 12h"
	d := scalarBut(want, Schema{"pattern": form}, func(v string) (time.Duration, error) {
		d, err := time.ParseDuration(v)
		if err != nil || !re.MatchString(v) {
			return 0, errors.New("must be " + want + " (the units are h, m, s and ms" + withUnit(v) + ")")
		}
		if d < lowest || d > highest {
			return 0, fmt.Errorf("must be from %s to %s", Short(lowest), Short(highest))
		}
		return d, nil
	})
	read := d.Read
	d.Read = func(w *Walker, at Place, into *time.Duration) {
		if hint := withUnit(at.Node.Value); hint != "" && at.Node.Kind == yaml.ScalarNode && !IsText(at.Node) {
			w.Fault(at, "must be %s (the units are h, m, s and ms%s), not %s", want, hint, describe(at.Node, false))
			return
		}
		read(w, at, into)
	}
	return d
}

// withUnit is what somebody meant who wrote a bare number or days, if that is clear.
func withUnit(v string) string {
	if days, ok := strings.CutSuffix(v, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 365 {
			return fmt.Sprintf("; %dd is %dh", n, 24*n)
		}
	}
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		return fmt.Sprintf("; %d seconds are %ds", n, n)
	}
	return ""
}

// Short writes 720h0m0s as 720h.
func Short(d time.Duration) string {
	v := d.String()
	if strings.HasSuffix(v, "m0s") {
		v = strings.TrimSuffix(v, "0s")
	}
	if strings.HasSuffix(v, "h0m") {
		v = strings.TrimSuffix(v, "0m")
	}
	return v
}

// SizeBetween is a number of bytes between two bounds.
func SizeBetween(lowest, highest int64) Shape[int64] {
	const form = `^[0-9]{1,9}(B|KiB|MiB|GiB)$`
	re := regexp.MustCompile(form)
	want := "a size such as 512B, 64KiB or 1MiB"
	return scalarBut(want, Schema{"pattern": form}, func(v string) (int64, error) {
		if !re.MatchString(v) {
			return 0, errors.New("must be " + want)
		}
		digits := strings.TrimRight(v, "BKiMG")
		n, _ := strconv.ParseInt(digits, 10, 64) // the form allows nine digits
		switch v[len(digits):] {
		case "KiB":
			n <<= 10
		case "MiB":
			n <<= 20
		case "GiB":
			n <<= 30
		}
		if n < lowest || n > highest {
			return 0, fmt.Errorf("must be from %s to %s", Size(lowest), Size(highest))
		}
		return n, nil
	})
}

// Size is a number of bytes as the file has it: 64KiB for 65536.
func Size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB"}
	for ; n >= 1024 && n%1024 == 0 && len(units) > 1; n /= 1024 {
		units = units[1:]
	}
	return strconv.FormatInt(n, 10) + units[0]
}

// scalarBut is scalar for a text that a number is easily written for: it does
// not advise quotes.
func scalarBut[T any](want string, s Schema, parse func(string) (T, error)) Shape[T] {
	inner := Scalar(want, s, parse)
	return Shape[T]{Want: want, Schema: s, Read: func(w *Walker, at Place, into *T) {
		if !IsText(at.Node) {
			w.Fault(at, "must be %s, not %s", want, describe(at.Node, false))
			return
		}
		inner.Read(w, at, into)
	}}
}
