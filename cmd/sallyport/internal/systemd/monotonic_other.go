//go:build !linux

package systemd

import "time"

// monotonic: there is no systemd where there is no Linux.
func monotonic() time.Duration { return 0 }
