// Command sallyport signs people in with OpenID Connect in front of an app and tells the app
// who they are.
//
// All of it is in package command, so that a program of one's own can be Sallyport too, with
// connectors that it does not have; test/plugin is an example.
package main

import (
	"os"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/command"
)

func main() { os.Exit(command.Main()) }
