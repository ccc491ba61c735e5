package guest

import (
	"context"
	"errors"
)

func crossTools(context.Context, string) (string, error) {
	return "", errors.New("build tools for another architecture: not yet")
}
