package object

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) != "" {
		serveForever()
		return
	}
	goleak.VerifyTestMain(m)
}
