package shimapi

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLogURIRoundTrip(t *testing.T) {
	for _, u := range []LogURI{
		{Path: "/var/log/pods/a_b_c/x/0.log", MaxSize: 10 << 20, MaxFiles: 5, Sandbox: "s1", RunDir: "/run/nodeagent"},
		{Path: "/odd ?&=%#;+ü/1.log", Sandbox: "S-2_x.y", RunDir: "/tmp/r u&n=1"},
	} {
		got, err := ParseLogURI(u.String())
		if err != nil || got != u {
			t.Errorf("ParseLogURI(%q) = %+v, %v; want %+v", u.String(), got, err, u)
		}
		if !IsLogURI(u.String()) {
			t.Errorf("IsLogURI(%q) = false", u.String())
		}
	}
	got, err := ParseLogURI(LogURI{Path: "/a/0.log", Sandbox: "s"}.String())
	if err != nil || got.RunDir != DefaultRunDir {
		t.Errorf("run dir = %q, %v; want the default", got.RunDir, err)
	}
}

func TestParseLogURIRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"empty": "", "plain path": "/a/0.log", "other scheme": "file:///a?sandbox=s",
		"host": "nodeagent://h/a?sandbox=s", "relative": "nodeagent://a?sandbox=s",
		"dotdot": "nodeagent:///a/../b?sandbox=s", "no sandbox": "nodeagent:///a",
		"sandbox leaves": "nodeagent:///a?sandbox=../x", "negative": "nodeagent:///a?sandbox=s&max-size=-1",
		"no files":    "nodeagent:///a?sandbox=s&max-size=1&max-files=0",
		"unknown key": "nodeagent:///a?sandbox=s&color=red", "nul": "nodeagent:///a%00b?sandbox=s",
		"not a number": "nodeagent:///a?sandbox=s&max-size=1k", "run relative": "nodeagent:///a?sandbox=s&run=x",
	} {
		if u, err := ParseLogURI(s); err == nil {
			t.Errorf("%s: ParseLogURI(%q) = %+v, want an error", name, s, u)
		}
	}
}

func FuzzParseLogURI(f *testing.F) {
	f.Add(LogURI{Path: "/var/log/pods/a/b/0.log", MaxSize: 1, MaxFiles: 2, Sandbox: "s", RunDir: "/run/x"}.String())
	f.Add("nodeagent:///a?sandbox=s;x=%zz")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseLogURI(s)
		if err != nil {
			return
		}
		again, err := ParseLogURI(u.String())
		if err != nil || again != u {
			t.Fatalf("%q: %+v became %+v, %v", s, u, again, err)
		}
	})
}

func TestExitRecord(t *testing.T) {
	dir := t.TempDir()
	want := ExitRecord{ContainerID: "c1", SandboxID: "s1", Pid: 7, ExitCode: 137, OOMKills: 2,
		StartedAt: time.Unix(1, 2).UTC(), ExitedAt: time.Unix(3, 4).UTC()}
	if _, err := ReadExit(dir, "c1"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("ReadExit before: %v, want not exist", err)
	}
	if err := WriteExit(dir, want); err != nil { // makes the directory
		t.Fatal(err)
	}
	got, err := ReadExit(dir, "c1")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("ReadExit = %+v, %v; want %+v", got, err, want)
	}
	if ids, err := ListExits(dir); err != nil || !reflect.DeepEqual(ids, []string{"c1"}) {
		t.Fatalf("ListExits = %v, %v", ids, err)
	}
	for range 2 {
		if err := RemoveExit(dir, "c1"); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := os.ReadDir(ExitDir(dir)); len(left) != 0 {
		t.Fatalf("left behind: %v", left)
	}
	for _, id := range []string{"", "../x", "a/b", ".hidden", strings.Repeat("x", 129)} {
		if err := WriteExit(dir, ExitRecord{ContainerID: id}); err == nil {
			t.Errorf("WriteExit took id %q", id)
		}
	}
}

func TestReadExitRefusesBadFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(ExitDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(id, data string) {
		if err := os.WriteFile(exitPath(dir, id), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("empty", "")
	write("half", `{"containerID":"half","exitC`)
	write("other", `{"containerID":"x","exitedAt":"2026-01-01T00:00:00Z"}`)
	write("big", `{"containerID":"big","exitedAt":"2026-01-01T00:00:00Z","sandboxID":"`+strings.Repeat("x", recordMax)+`"}`)
	if err := os.Symlink("/etc/hostname", exitPath(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"empty", "half", "other", "big", "link"} {
		if r, err := ReadExit(dir, id); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %+v, %v; want an error that is not ErrNotExist", id, r, err)
		}
	}
}

func TestShimRecordAlive(t *testing.T) {
	dir := t.TempDir()
	start, err := ProcessStartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	r := ShimRecord{SandboxID: "s", Pid: os.Getpid(), StartTime: start, Bundle: "/b", Namespace: "n"}
	if err := WriteShim(dir, r); err != nil {
		t.Fatal(err)
	}
	got, err := ReadShim(dir, "s")
	if err != nil || got != r || !got.Alive() {
		t.Fatalf("ReadShim = %+v, %v, alive %t", got, err, got.Alive())
	}
	got.StartTime++
	if got.Alive() {
		t.Error("a reused pid counts as alive")
	}
	zombie := exec.Command("true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	zr := ShimRecord{Pid: zombie.Process.Pid}
	if zr.StartTime, err = ProcessStartTime(zr.Pid); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, zr.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if zr.Alive() {
		t.Error("a zombie counts as alive")
	}
	_ = zombie.Wait()
	if err := RemoveShim(dir, "s"); err != nil {
		t.Fatal(err)
	}
	if ids, _ := ListShims(dir); len(ids) != 0 {
		t.Fatalf("left: %v", ids)
	}
}

// A run directory deeper than sun_path must still be reachable.
func TestSocketInDeepDirectory(t *testing.T) {
	for _, runDir := range []string{t.TempDir(), filepath.Join(t.TempDir(), strings.Repeat("deep/", 40))} {
		l, err := Listen(runDir, "sandbox")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				done <- err
				return
			}
			defer conn.Close()
			var req Request
			if err := ReadLine(bufio.NewReader(conn), &req); err != nil {
				done <- err
				return
			}
			done <- WriteLine(conn, Response{Stats: &Stats{Pid: 5}})
		}()
		c, err := Dial(runDir, "sandbox")
		if err != nil {
			t.Fatal(err)
		}
		st, err := c.Stats(t.Context())
		if err != nil || st.Pid != 5 {
			t.Fatalf("Stats = %+v, %v", st, err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		_ = l.Close()
		info, err := os.Stat(filepath.Join(ShimDir(runDir), "sandbox.sock"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("socket mode %v, %v", info, err)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 2, 'h', 'i'})
	f.Add([]byte{9, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		for {
			_, p, err := ReadFrame(r, nil)
			if err != nil {
				return
			}
			if len(p) > FrameMax {
				t.Fatal("frame over the limit")
			}
		}
	})
}

func FuzzReadLine(f *testing.F) {
	f.Add([]byte(`{"verb":"exit","force":true}` + "\n"))
	f.Add([]byte("{}\n{\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var req Request
		_ = ReadLine(bufio.NewReader(bytes.NewReader(data)), &req)
	})
}
