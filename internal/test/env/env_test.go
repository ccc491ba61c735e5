package env

import "testing"

func TestNumber(t *testing.T) {
	t.Setenv("ENV_TEST", "18446744073709551615")
	if n := Number(t, "ENV_TEST", 7); n != 1<<64-1 {
		t.Error(n)
	}
	if n := Seed(t, "ENV_TEST"); n != 1<<64-1 {
		t.Error(n)
	}
	t.Setenv("ENV_TEST", "")
	if n := Number(t, "ENV_TEST", 7); n != 7 {
		t.Error(n)
	}
	if Seed(t, "ENV_TEST") == Seed(t, "ENV_TEST") {
		t.Error("two seeds are the same")
	}
}
