package yamltable_test

import (
	"fmt"
	"time"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/internal/yamltable"
)

// A table reads a file and says what is wrong with it. The secret of a key that
// the table does not know is masked, as that of one it knows.
func Example() {
	type shop struct {
		Name string
		Open time.Duration
	}
	table := yamltable.Object[shop]{Keys: []yamltable.Entry[shop]{
		yamltable.Field("name", "What people call it.", yamltable.Text("a name"),
			func(s *shop) *string { return &s.Name }).Required(),
		yamltable.Field("open", "How long it is open.", yamltable.Duration(time.Hour, 24*time.Hour),
			func(s *shop) *time.Duration { return &s.Open }).Or("8h"),
	}}.Shape()
	read := func(text string) (s shop, faults yamltable.Faults) {
		nothing := func() yamltable.Faults { return nil }
		faults = yamltable.Read(yamltable.Open("shop.yaml", []byte(text)), table, nil, &s, nothing)
		return s, faults
	}

	s, faults := read("name: Corner\n")
	fmt.Println(s.Name, s.Open, len(faults))
	_, faults = read("nmae: Corner\nopen: 30h\nalarm_token: hunter2\n")
	for _, f := range faults {
		fmt.Println(f)
	}
	fmt.Print(faults[3].Excerpt)
	// Output:
	// Corner 8h0m0s 0
	// shop.yaml:1:1: nmae: unknown field (did you mean "name"?)
	// shop.yaml:1:1: name: is required. What people call it.
	// shop.yaml:2:7: open: must be from 1h to 24h, not "30h"
	// shop.yaml:3:1: alarm_token: unknown field
	//      2 | open: 30h
	//      3 | alarm_token: <secret>
	//        | ^
}
