package server

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// logTree is a directory of logs as pods can leave it, beside a secret.
func logTree(t testing.TB) string {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "log")
	for _, d := range []string{"pods/web", "containers", "many", `"><script>`} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"../secret": "hidden", "syslog": "<html>line</html>\n", "pods/web/0.log": "said\n", "a:b": "colon", "index.html": "no index",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"containers/web.log": filepath.Join(dir, "pods/web/0.log"), "containers/near": "../pods/web/0.log",
		"out": "../secret", "whole": filepath.Join(top, "secret"), "up": "..", "top": "/", "round": "round", "gone": "nothing",
		"deep": "out", "dir": "pods",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("pipe", filepath.Join(dir, "to-pipe")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestNodeLogs: files and directories are shown, by links too, and nothing that lies
// elsewhere or is neither.
func TestNodeLogs(t *testing.T) {
	dir := logTree(t)
	b := newBed(t, func(cfg *NodeAPIConfig) { cfg.LogDir = dir }).run(t)
	boss := b.boss(t)
	for path, want := range map[string]answer{
		"/logs/syslog":                      {code: 200, body: "<html>line</html>\n"},
		"/logs/a:b":                         {code: 200, body: "colon"},
		"/logs/pods/web/0.log":              {code: 200, body: "said\n"},
		"/logs/dir/web/0.log":               {code: 200, body: "said\n"},
		"/logs/containers/web.log":          {code: 200, body: "said\n"},
		"/logs/containers/near":             {code: 200, body: "said\n"},
		"/logs/out":                         {code: 403},
		"/logs/deep":                        {code: 403},
		"/logs/whole":                       {code: 403},
		"/logs/up/secret":                   {code: 403},
		"/logs/up":                          {code: 403},
		"/logs/top/etc/passwd":              {code: 403},
		"/logs/round":                       {code: 403},
		"/logs/pipe":                        {code: 403},
		"/logs/to-pipe":                     {code: 403},
		"/logs/gone":                        {code: 404},
		"/logs/nothing":                     {code: 404},
		"/logs/syslog/x":                    {code: 404},
		"/logs/" + strings.Repeat("n", 300): {code: 404},
		"/logs/../secret":                   {code: 404},
		"/logs/%2e%2e/secret":               {code: 404},
		"/logs/..%2fsecret":                 {code: 404},
	} {
		got := ask(t, boss, http.MethodGet, b.url+path)
		if got.code != want.code || want.code == 200 && got.body != want.body || strings.Contains(got.body, "hidden") || strings.Contains(got.body, dir) {
			t.Errorf("%s: %d %q, want %d %q", path, got.code, got.body, want.code, want.body)
		}
		if got.code == 200 && (got.head.Get("Content-Type") != "text/plain; charset=utf-8" || got.head.Get("X-Content-Type-Options") != "nosniff") {
			t.Errorf("%s is a %s", path, got.head.Get("Content-Type"))
		}
	}
	if got := ask(t, boss, http.MethodGet, b.url+"/logs/syslog", "Range", "bytes=6-9"); got.code != 206 || got.body != "line" {
		t.Errorf("a part of a file is %d %q", got.code, got.body)
	}
	if got := ask(t, boss, http.MethodPost, b.url+"/logs/syslog"); got.code != 405 {
		t.Errorf("POST is answered with %d", got.code)
	}
	for path, want := range map[string]string{"/logs/": `<a href="./pods/">pods/</a>`, "/logs": `<a href="./logs/pods/">pods/</a>`, "/logs/pods": `<a href="./pods/web/">web/</a>`, "/logs/dir/": `<a href="./web/">web/</a>`} {
		got := ask(t, boss, http.MethodGet, b.url+path)
		if got.code != 200 || !strings.Contains(got.body, want+"\n") || strings.Contains(got.body, "<script>") {
			t.Errorf("%s: %d %s, want %s", path, got.code, got.body, want)
		}
	}
}

// TestNodeLogsOff: where the operator shows none, there are none.
func TestNodeLogsOff(t *testing.T) {
	b := newBed(t, nil).run(t)
	if got := ask(t, b.boss(t), http.MethodGet, b.url+"/logs/syslog"); got.code != 405 || got.body != "logs endpoint is disabled.\n" {
		t.Errorf("%d %q", got.code, got.body)
	}
}

// FuzzNodeLogs: no path opens what lies outside, or anything but a file or directory.
func FuzzNodeLogs(f *testing.F) {
	dir := logTree(f)
	secret, err := os.Stat(filepath.Join(dir, "../secret"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"", "syslog", "up/secret", "deep", "a/../../secret", "containers/web.log/../../../secret", "top/etc", "pipe", "a\x00", "dir/../up/secret"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		file, info, err := openLog(dir, name)
		if err != nil {
			return
		}
		defer file.Close()
		if os.SameFile(info, secret) || !info.IsDir() && !info.Mode().IsRegular() {
			t.Errorf("%q opens %s", name, info.Mode())
		}
		if info.IsDir() {
			if inside, err := filepath.EvalSymlinks(filepath.Join(dir, name)); err == nil && inside != dir && !strings.HasPrefix(inside, dir+"/") {
				t.Errorf("%q opens %s", name, inside)
			}
		}
	})
}
