//go:build !linux && !darwin

package auditfile

import "os"

func giveToOwner(*os.File) error { return nil }
