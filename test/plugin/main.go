// Command sallyport is Sallyport with one more type of connectors: that is all there is to it.
package main

import (
	"os"

	"github.com/sallyport-proxy/sallyport/cmd/sallyport/command"

	"example.com/noticeboard/board"
)

func main() { os.Exit(command.Main(command.WithConnector("notice_board", board.New))) }
