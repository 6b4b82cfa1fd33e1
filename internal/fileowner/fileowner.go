// Package fileowner is for files that a command makes for the process that serves.
//
// It owns whose such a file is. What is in it, and its mode, are its caller's.
package fileowner

import "os"

// OfDirectory gives a file that root has just made to the owner of its directory. Whoever is
// not root cannot give a file away, and keeps it.
func OfDirectory(f *os.File) error { return ofDirectory(f) }
