package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// KubeletFlag is a flag of kubelet that sets one field of its configuration, or,
// where Field is empty, nothing of this daemon.
type KubeletFlag struct{ Name, Field string }

// KubeletFlags are those of kubelet's flags that are understood only so that a
// node's command line need not be changed: the configuration file is the better
// place for each. --root-dir and the like are Flags.
func KubeletFlags() []KubeletFlag {
	var all []KubeletFlag
	for _, name := range slices.Sorted(maps.Keys(kubeletFlags)) {
		all = append(all, KubeletFlag{name, kubeletFlags[name]})
	}
	for _, name := range flagsOfNothing {
		all = append(all, KubeletFlag{Name: name})
	}
	return all
}

// kubeletFlags are the flags of kubelet 1.36 by the field that they set.
var kubeletFlags = map[string]string{
	"address": "address", "allowed-unsafe-sysctls": "allowedUnsafeSysctls",
	"anonymous-auth":                               "authentication.anonymous.enabled",
	"authentication-token-webhook":                 "authentication.webhook.enabled",
	"authentication-token-webhook-cache-ttl":       "authentication.webhook.cacheTTL",
	"authorization-mode":                           "authorization.mode",
	"authorization-webhook-cache-authorized-ttl":   "authorization.webhook.cacheAuthorizedTTL",
	"authorization-webhook-cache-unauthorized-ttl": "authorization.webhook.cacheUnauthorizedTTL",
	"cgroup-driver":                                "cgroupDriver", "cgroup-root": "cgroupRoot", "cgroups-per-qos": "cgroupsPerQOS",
	"client-ca-file": "authentication.x509.clientCAFile", "cluster-dns": "clusterDNS", "cluster-domain": "clusterDomain",
	"container-log-max-files": "containerLogMaxFiles", "container-log-max-size": "containerLogMaxSize",
	"contention-profiling": "enableContentionProfiling", "cpu-cfs-quota": "cpuCFSQuota", "cpu-cfs-quota-period": "cpuCFSQuotaPeriod",
	"cpu-manager-policy": "cpuManagerPolicy", "cpu-manager-policy-options": "cpuManagerPolicyOptions",
	"cpu-manager-reconcile-period": "cpuManagerReconcilePeriod", "enable-controller-attach-detach": "enableControllerAttachDetach",
	"enable-debugging-handlers": "enableDebuggingHandlers", "enable-server": "enableServer",
	"enforce-node-allocatable": "enforceNodeAllocatable", "event-burst": "eventBurst", "event-qps": "eventRecordQPS",
	"eviction-hard": "evictionHard", "eviction-max-pod-grace-period": "evictionMaxPodGracePeriod",
	"eviction-minimum-reclaim": "evictionMinimumReclaim", "eviction-pressure-transition-period": "evictionPressureTransitionPeriod",
	"eviction-soft": "evictionSoft", "eviction-soft-grace-period": "evictionSoftGracePeriod",
	"fail-cgroupv1": "failCgroupV1", "fail-swap-on": "failSwapOn", "feature-gates": "featureGates",
	"file-check-frequency": "fileCheckFrequency", "hairpin-mode": "hairpinMode",
	"healthz-bind-address": "healthzBindAddress", "healthz-port": "healthzPort", "http-check-frequency": "httpCheckFrequency",
	"image-gc-high-threshold": "imageGCHighThresholdPercent", "image-gc-low-threshold": "imageGCLowThresholdPercent",
	"image-service-endpoint": "imageServiceEndpoint", "kernel-memcg-notification": "kernelMemcgNotification",
	"kube-api-burst": "kubeAPIBurst", "kube-api-content-type": "contentType", "kube-api-qps": "kubeAPIQPS",
	"kube-reserved": "kubeReserved", "kube-reserved-cgroup": "kubeReservedCgroup", "kubelet-cgroups": "kubeletCgroups",
	"local-storage-capacity-isolation": "localStorageCapacityIsolation", "make-iptables-util-chains": "makeIPTablesUtilChains",
	"manifest-url": "staticPodURL", "manifest-url-header": "staticPodURLHeader", "max-open-files": "maxOpenFiles", "max-pods": "maxPods",
	"memory-manager-policy": "memoryManagerPolicy", "minimum-image-ttl-duration": "imageMinimumGCAge",
	"node-status-max-images": "nodeStatusMaxImages", "node-status-update-frequency": "nodeStatusUpdateFrequency",
	"oom-score-adj": "oomScoreAdj", "pod-cidr": "podCIDR", "pod-max-pids": "podPidsLimit", "pods-per-core": "podsPerCore",
	"port": "port", "protect-kernel-defaults": "protectKernelDefaults", "provider-id": "providerID", "qos-reserved": "qosReserved",
	"read-only-port": "readOnlyPort", "register-node": "registerNode", "register-with-taints": "registerWithTaints",
	"registry-burst": "registryBurst", "registry-qps": "registryPullQPS", "reserved-cpus": "reservedSystemCPUs",
	"reserved-memory": "reservedMemory", "resolv-conf": "resolvConf", "rotate-certificates": "rotateCertificates",
	"rotate-server-certificates": "serverTLSBootstrap", "runonce": "runOnce", "runtime-request-timeout": "runtimeRequestTimeout",
	"seccomp-default": "seccompDefault", "serialize-image-pulls": "serializeImagePulls",
	"streaming-connection-idle-timeout": "streamingConnectionIdleTimeout", "sync-frequency": "syncFrequency",
	"system-cgroups": "systemCgroups", "system-reserved": "systemReserved", "system-reserved-cgroup": "systemReservedCgroup",
	"tls-cert-file": "tlsCertFile", "tls-cipher-suites": "tlsCipherSuites", "tls-min-version": "tlsMinVersion",
	"tls-private-key-file": "tlsPrivateKeyFile", "topology-manager-policy": "topologyManagerPolicy",
	"topology-manager-policy-options": "topologyManagerPolicyOptions", "topology-manager-scope": "topologyManagerScope",
	"volume-plugin-dir": "volumePluginDir", "volume-stats-agg-period": "volumeStatsAggPeriod",
}

// flagsOfNothing have no field, and nothing here to set; the last one is of older
// kubelets, and kubeadm's files of those still have it.
var flagsOfNothing = []string{
	"exit-on-lock-contention", "experimental-allocatable-ignore-eviction", "experimental-mounter-path",
	"image-credential-provider-bin-dir", "image-credential-provider-config", "lock-file",
	"maximum-dead-containers", "maximum-dead-containers-per-container", "minimum-container-ttl-duration",
	"runtime-cgroups", "pod-infra-container-image",
}

// Type is that of the field, and of a flag of nothing text.
func (f KubeletFlag) Type() reflect.Type {
	t := reflect.TypeFor[kubeletv1beta1.KubeletConfiguration]()
	if f.Field == "" {
		return reflect.TypeFor[string]()
	}
	for name := range strings.SplitSeq(f.Field, ".") {
		t = fieldNamed(t, name)
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

func fieldNamed(t reflect.Type, name string) reflect.Type {
	for f := range t.Fields() {
		if json, _, _ := strings.Cut(f.Tag.Get("json"), ","); json == name {
			return f.Type
		}
	}
	return reflect.TypeFor[string]() // a test holds the names to the type
}

// Switch tells that the flag may stand without a value.
func (f KubeletFlag) Switch() bool {
	return f.Type().Kind() == reflect.Bool || f.Name == "exit-on-lock-contention" || f.Name == "experimental-allocatable-ignore-eviction"
}

// Many tells that the flag may be given several times.
func (f KubeletFlag) Many() bool {
	return f.Field != "" && (f.Type().Kind() == reflect.Slice || f.Type().Kind() == reflect.Map)
}

// Check judges the value of a flag.
func (f KubeletFlag) Check(text string) error {
	_, err := f.parse(text)
	return err
}

// parse makes of a flag's value what a file would say.
func (f KubeletFlag) parse(text string) (any, error) {
	switch t := f.Type(); {
	case t == reflect.TypeFor[metav1.Duration]():
		var d metav1.Duration
		return text, d.UnmarshalJSON([]byte(strconv.Quote(text)))
	case t == reflect.TypeFor[[]corev1.Taint]():
		return parseTaints(text)
	case t == reflect.TypeFor[[]kubeletv1beta1.MemoryReservation]():
		return parseReservedMemory(text)
	case t.Kind() == reflect.Bool:
		return strconv.ParseBool(text)
	case t.Kind() == reflect.Int32, t.Kind() == reflect.Int64:
		return strconv.ParseInt(text, 10, t.Bits())
	case t.Kind() == reflect.Slice:
		return words(text), nil
	case t.Kind() == reflect.Map:
		return f.parseMap(text, t.Elem())
	}
	return text, nil
}

// words are what stands between commas.
func words(text string) []string {
	all := []string{}
	for w := range strings.SplitSeq(text, ",") {
		if w = strings.TrimSpace(w); w != "" {
			all = append(all, w)
		}
	}
	return all
}

func (f KubeletFlag) parseMap(text string, value reflect.Type) (any, error) {
	sep := "="
	switch {
	case f.Field == "evictionHard" || f.Field == "evictionSoft":
		sep = "<"
	case value.Kind() == reflect.Slice:
		sep = ":"
	}
	all := map[string]any{}
	for _, pair := range words(text) {
		k, v, ok := strings.Cut(pair, sep)
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		switch {
		case !ok || k == "":
			return nil, fmt.Errorf("%q is not key%svalue", pair, sep)
		case value.Kind() == reflect.Bool:
			b, err := strconv.ParseBool(v)
			if err != nil {
				return nil, fmt.Errorf("%q is neither true nor false", v)
			}
			all[k] = b
		case value.Kind() == reflect.Slice:
			had, _ := all[k].([]string)
			all[k] = append(had, v)
		default:
			all[k] = v
		}
	}
	return all, nil
}

// parseTaints reads key=value:effect,...
func parseTaints(text string) ([]corev1.Taint, error) {
	all := []corev1.Taint{}
	for _, w := range words(text) {
		what, effect, ok := strings.Cut(w, ":")
		key, value, _ := strings.Cut(what, "=")
		if !ok || key == "" || effect == "" {
			return nil, fmt.Errorf("%q is not key=value:effect", w)
		}
		all = append(all, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return all, nil
}

// parseReservedMemory reads NODE:type=quantity,type=quantity;NODE:...
func parseReservedMemory(text string) (any, error) {
	var all []any
	for part := range strings.SplitSeq(text, ";") {
		node, what, ok := strings.Cut(part, ":")
		n, err := strconv.ParseInt(strings.TrimSpace(node), 10, 32)
		if !ok || err != nil {
			return nil, fmt.Errorf("%q is not NODE:memory=quantity", part)
		}
		limits := map[string]string{}
		for _, w := range words(what) {
			k, v, _ := strings.Cut(w, "=")
			limits[k] = v
		}
		all = append(all, map[string]any{"numaNode": n, "limits": limits})
	}
	return all, nil
}

// layFlags lays kubelet's flags over the configuration.
func (c *Config) layFlags(given map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		f := KubeletFlag{name, kubeletFlags[name]}
		if f.Field == "" {
			c.Unused = append(c.Unused, "--"+name)
			continue
		}
		value, err := f.parse(given[name])
		if err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
		parts := strings.Split(f.Field, ".")
		if !c.acts(parts[0]) {
			c.Unused = append(c.Unused, "--"+name)
		}
		for _, part := range slices.Backward(parts) {
			value = map[string]any{part: value}
		}
		text, err := json.Marshal(value)
		if err == nil {
			err = json.Unmarshal(text, &c.Kubelet)
		}
		if err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
		c.origin(originKubelet+"."+f.Field, "--"+name)
	}
	return nil
}

// acts tells whether the daemon acts on a field of KubeletConfiguration.
func (c *Config) acts(field string) bool {
	return slices.Contains(usedKubelet, field) || c.Cluster != nil && slices.Contains(inCluster, field)
}
