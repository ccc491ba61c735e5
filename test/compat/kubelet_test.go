package compat

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/config"
)

const settingsPage = "../../docs/configuration.md"

func settings(t *testing.T) (fields, flags map[string]Setting) {
	t.Helper()
	fields, flags, err := ReadSettings(settingsPage)
	if err != nil {
		t.Fatal(err)
	}
	return fields, flags
}

// actedOn tells that the fields below one count, too.
func actedOn(s State) bool { return s == Honoured || s == Partly }

// TestEverySetting: the page has each field of KubeletConfiguration, and no other.
func TestEverySetting(t *testing.T) {
	rows, _ := settings(t)
	seen := map[string]bool{}
	for _, f := range KubeletFields(func(path string) bool { return actedOn(rows[path].Cluster) }) {
		seen[f.Path] = true
		if _, ok := rows[f.Path]; !ok {
			t.Errorf("%s is not in %s: say there what the daemon does with it", f.Path, settingsPage)
		}
	}
	for path, row := range rows {
		if !seen[path] {
			t.Errorf("%s is in %s, and KubeletConfiguration has no such field below what is honoured", path, settingsPage)
		}
		for _, s := range []State{row.Alone, row.Cluster} {
			if !slices.Contains([]State{Honoured, Partly, Refused, Unused, NoBusiness}, s) {
				t.Errorf("%s is %q: known are honoured, partly, refused, unused, no business", path, s)
			}
		}
	}
	if len(seen) < 130 {
		t.Errorf("found %d fields only", len(seen))
	}
}

// TestSettingNotes: what is honoured names a row of coverage.md or a test that
// exist.
func TestSettingNotes(t *testing.T) {
	coverage, err := os.ReadFile("../../docs/coverage.md")
	if err != nil {
		t.Fatal(err)
	}
	fields, _ := settings(t)
	for _, r := range fields {
		ids, tests := rowID.FindAllString(r.Note, -1), testName.FindAllString(r.Note, -1)
		if actedOn(r.Cluster) && len(ids)+len(tests) == 0 && !strings.HasPrefix(r.Note, "by part") && !strings.Contains(r.Note, "as `") {
			t.Errorf("%s is %s, and no row or test proves it: %q", r.Name, r.Cluster, r.Note)
		}
		for _, id := range ids {
			if !strings.Contains(string(coverage), id) {
				t.Errorf("%s: row %s is not in docs/coverage.md", r.Name, id)
			}
		}
		for _, name := range tests {
			if err := exec.CommandContext(t.Context(), "git", "grep", "-q", "--untracked", "func "+name+"(", "--", "../..").Run(); err != nil {
				t.Errorf("%s: there is no %s", r.Name, name)
			}
		}
	}
}

// good are values that the daemon takes, where not every value is good; bad are
// values that it refuses, and why.
var (
	good = map[string]string{
		"authorization.mode": "Webhook", "tlsCipherSuites": "[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]", "tlsMinVersion": "VersionTLS12",
		"address": "192.0.2.1", "cgroupDriver": "cgroupfs", "cgroupRoot": "/x", "podLogsDir": "/x", "staticPodPath": "/x",
		"containerLogMaxSize": "1Mi", "containerLogMaxFiles": "3", "containerRuntimeEndpoint": "unix:///x", "nodeLeaseDurationSeconds": "10",
		"enforceNodeAllocatable": "[none]", "allowedUnsafeSysctls": "[kernel.msgmax]", "podCIDR": "10.0.0.0/24",
		"imagePullCredentialsVerificationPolicy": "AlwaysVerify",
		"preloadedImagesVerificationAllowlist":   "[a.example/b]\nimagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages",
		"evictionHard":                           "{memory.available: 5%}", "systemReserved": "{cpu: 1m}", "kubeReserved": "{cpu: 1m}", "reservedSystemCPUs": `"0"`,
		"authentication": "{x509: {clientCAFile: /x}}", "authentication.anonymous": "{enabled: false}", "authentication.webhook": "{enabled: true}",
		"authentication.x509": "{clientCAFile: /x}", "authorization": "{mode: Webhook}", "authorization.webhook": "{cacheAuthorizedTTL: 1s}",
		"registerWithTaints": "[{key: k, effect: NoSchedule}]", "reservedMemory": "[{numaNode: 0, limits: {memory: 1Gi}}]",
		"shutdownGracePeriodByPodPriority": "[{priority: 1, shutdownGracePeriodSeconds: 1}]", "shutdownGracePeriodCriticalPods": "1s\nshutdownGracePeriod: 2s", "staticPodURL": "http://192.0.2.1/pods", "staticPodURLHeader": "{a: [b]}",
		"logging": "{verbosity: 3}", "memorySwap": "{swapBehavior: LimitedSwap}", "crashLoopBackOff": "{maxContainerRestartPeriod: 1s}",
		"tracing": "{samplingRatePerMillion: 1}", "userNamespaces": "{idsPerPod: 65536}", "cpuManagerPolicy": "static",
	}
	bad = map[string]string{
		"readOnlyPort": "10255", "authentication.anonymous.enabled": "true", "authentication": "{anonymous: {enabled: true}}",
		"authentication.anonymous": "{enabled: true}", "authorization": "{mode: AlwaysAllow}", "authorization.mode": "AlwaysAllow",
		"tlsCipherSuites": "[TLS_RSA_WITH_RC4_128_SHA]", "tlsMinVersion": "VersionTLS10", "nodeLeaseDurationSeconds": "3",
		"imagePullCredentialsVerificationPolicy": "Sometimes", "preloadedImagesVerificationAllowlist": "[a.example/b]", "cgroupDriver": "other",
		"maxParallelImagePulls": "0", "evictionHard": "{memory.available: some}", "containerLogMaxSize": "much", "containerLogMaxFiles": "1",
		"systemReserved": "{cpu: some}", "kubeReserved": "{cpu: some}", "reservedSystemCPUs": "some", "enforceNodeAllocatable": "[system-reserved]",
		"allowedUnsafeSysctls": "[vm.swappiness]", "containerRuntimeEndpoint": "npipe:////./pipe/x",
		"staticPodURL": "ftp://x/",
	}
)

// value is what a file says of a field: something else than nothing.
func value(f Field) string {
	if v, ok := good[f.Path]; ok {
		return v
	}
	t := f.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[metav1.Duration]():
		return "7s"
	case t.Kind() == reflect.Bool:
		return "true"
	case t.Kind() == reflect.Int32, t.Kind() == reflect.Int64, t.Kind() == reflect.Float64:
		return "1"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Int32:
		return "[1]"
	case t.Kind() == reflect.Slice:
		return "[x]"
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Bool:
		return "{x: true}"
	case t.Kind() == reflect.Map:
		return `{x: "1"}`
	}
	return "x"
}

// load is what the daemon makes of a file that sets one field, on a node that stands
// alone or on one of a cluster.
func load(t *testing.T, path, value string, cluster bool) (*config.Config, error) {
	t.Helper()
	text := value
	for _, name := range slices.Backward(strings.Split(path, ".")) {
		if text = name + ": " + text; name != strings.Split(path, ".")[0] {
			text = "{" + text + "}"
		}
	}
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"+text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := config.Flags{Config: file, HostnameOverride: "n"}
	if cluster {
		flags.Kubeconfig = "/etc/kubernetes/kubelet.conf"
	}
	return config.Load(flags)
}

// TestSettings sets each field in a file: what is said to be acted on is in force and
// not told as unused, what is not is told, and what is refused is refused by name.
func TestSettings(t *testing.T) {
	rows, _ := settings(t)
	read := selectors(t)
	for _, f := range KubeletFields(func(path string) bool { return actedOn(rows[path].Cluster) }) {
		for _, cluster := range []bool{false, true} {
			row := rows[f.Path]
			state := row.Alone
			if cluster {
				state = row.Cluster
			}
			if state != Refused {
				taken(t, f, state, cluster)
			}
			if b, ok := bad[f.Path]; ok != (row.Cluster == Partly || row.Cluster == Refused) {
				t.Errorf("%s is said to be %s, and there is a value that is refused: %t", f.Path, row.Cluster, ok)
			} else if ok && (state == Partly || state == Refused) {
				top, _, _ := strings.Cut(f.Path, ".")
				if _, err := load(t, f.Path, b, cluster); err == nil || !strings.Contains(err.Error(), top) {
					t.Errorf("%s: %s is answered with %v, in a cluster: %t", f.Path, b, err, cluster)
				}
			}
			if actedOn(state) && !read[f.Go] {
				t.Errorf("%s is said to be %s, and no code reads it", f.Path, state)
			}
		}
	}
}

// taken proves that a good value keeps nobody from starting, and what is said of it.
func taken(t *testing.T, f Field, state State, cluster bool) {
	t.Helper()
	c, err := load(t, f.Path, value(f), cluster)
	if err != nil {
		t.Errorf("%s is said to be %s, and %s is refused, in a cluster: %t: %v", f.Path, state, value(f), cluster, err)
		return
	}
	if told := len(c.Unused) > 0; told == actedOn(state) && value(f) != "{enabled: false}" {
		t.Errorf("%s is said to be %s, in a cluster: %t, and is told as unused: %v", f.Path, state, cluster, c.Unused)
	}
	if set := c.Origin["kubelet."+f.Path]; set == "" && !strings.HasPrefix(value(f), "{") {
		t.Errorf("nobody is said to have set %s: %v", f.Path, c.Origin)
	}
}

// selectors are the names that the code of the daemon reads of anything.
func selectors(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, dir := range []string{"../../cmd/nodeagent", "../../internal/config"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					all[s.Sel.Name] = true
				}
				return true
			})
		}
	}
	return all
}

// TestSilentSettings: what kubeadm writes out of what was left open is told of by
// nobody.
func TestSilentSettings(t *testing.T) {
	for text, told := range map[string]bool{
		"syncFrequency: 0s": false, "logging: {flushFrequency: 0, options: {json: {infoBufferSize: \"0\"}}, verbosity: 0}": false,
		"memorySwap: {}": false, "kubeletCgroups: \"\"": false, "kubeletCgroups: \"0\"": true, "failSwapOn: false": true, "evictionSoft: {a: b}": true, "memorySwap: {swapBehavior: x}": true,
	} {
		name, v, _ := strings.Cut(text, ": ")
		c, err := load(t, name, v, true)
		if err != nil || (len(c.Unused) > 0) != told {
			t.Errorf("%s: told of are %v, %v", text, c.Unused, err)
		}
	}
}

// TestEveryFlag: the page has each flag that sets a field, with the field, and what a
// flag says is what a file would say.
func TestEveryFlag(t *testing.T) {
	_, rows := settings(t)
	for _, f := range config.KubeletFlags() {
		row, ok := rows[f.Name]
		switch {
		case !ok:
			t.Errorf("--%s is not in %s", f.Name, settingsPage)
		case f.Field == "" && row.Alone != Unused, f.Field != "" && (row.Alone != Sets || row.Note != "`"+f.Field+"`"):
			t.Errorf("--%s is said to be %s %s; it sets %q", f.Name, row.Alone, row.Note, f.Field)
		}
		if f.Field != "" && !slices.ContainsFunc(KubeletFields(func(string) bool { return true }), func(k Field) bool { return k.Path == f.Field }) {
			t.Errorf("--%s sets %s, which is no field", f.Name, f.Field)
		}
	}
	for name, row := range rows {
		known := slices.ContainsFunc(config.KubeletFlags(), func(f config.KubeletFlag) bool { return f.Name == name })
		if (row.Alone == Sets || row.Alone == Unused) != known {
			t.Errorf("--%s is said to be %s, and is understood: %t", name, row.Alone, known)
		}
	}
}

// TestFlagValues: each kind of flag says what the field in a file would say.
func TestFlagValues(t *testing.T) {
	given := map[string]string{
		"max-pods": "7", "rotate-certificates": "true", "cluster-dns": "192.0.2.1,192.0.2.2", "system-reserved": "cpu=1m,memory=1Mi",
		"eviction-hard": "memory.available<5%", "feature-gates": "A=true,B=false", "volume-stats-agg-period": "7s", "anonymous-auth": "false",
		"register-with-taints": "a=b:NoSchedule,c:NoExecute", "reserved-memory": "0:memory=1Gi;1:memory=2Gi,hugepages-1Gi=1Gi", "manifest-url-header": "a:b,a:c", "tls-min-version": "VersionTLS12",
		"pod-infra-container-image": "x",
	}
	c, err := config.Load(config.Flags{HostnameOverride: "n", Kubeconfig: "/k", Kubelet: given})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "c")
	if err := os.WriteFile(path, []byte(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 7
rotateCertificates: true
clusterDNS: [192.0.2.1, 192.0.2.2]
systemReserved: {cpu: 1m, memory: 1Mi}
evictionHard: {memory.available: 5%}
featureGates: {A: true, B: false}
volumeStatsAggPeriod: 7s
authentication: {anonymous: {enabled: false}}
registerWithTaints: [{key: a, value: b, effect: NoSchedule}, {key: c, effect: NoExecute}]
reservedMemory: [{numaNode: 0, limits: {memory: 1Gi}}, {numaNode: 1, limits: {memory: 2Gi, hugepages-1Gi: 1Gi}}]
staticPodURLHeader: {a: [b, c]}
tlsMinVersion: VersionTLS12
`), 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := config.Load(config.Flags{HostnameOverride: "n", Kubeconfig: "/k", Config: path})
	if err != nil {
		t.Fatal(err)
	}
	c.Kubelet.TypeMeta, want.Kubelet.TypeMeta = metav1.TypeMeta{}, metav1.TypeMeta{}
	if !reflect.DeepEqual(c.Kubelet, want.Kubelet) {
		t.Errorf("flags say %+v, a file says %+v", c.Kubelet, want.Kubelet)
	}
	if !slices.Equal(c.Unused, []string{"--feature-gates", "--pod-infra-container-image", "--reserved-memory"}) || c.Origin["kubelet.maxPods"] != "--max-pods" {
		t.Errorf("unused are %v, set is by %v", c.Unused, c.Origin)
	}
	for name, text := range map[string]string{"max-pods": "many", "rotate-certificates": "perhaps", "volume-stats-agg-period": "7", "system-reserved": "cpu", "register-with-taints": "a", "feature-gates": "A=maybe", "reserved-memory": "x"} {
		if _, err := config.Load(config.Flags{HostnameOverride: "n", Kubelet: map[string]string{name: text}}); err == nil || !strings.Contains(err.Error(), "--"+name) {
			t.Errorf("--%s=%s is answered with %v", name, text, err)
		}
	}
}
