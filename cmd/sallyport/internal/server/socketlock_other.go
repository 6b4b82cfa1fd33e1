//go:build !linux && !darwin

package server

import (
	"context"
	"errors"
)

func lockDirectory(context.Context, string) (unlock func(), err error) {
	return nil, errors.ErrUnsupported
}
