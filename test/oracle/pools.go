package oracle

import (
	corev1 "k8s.io/api/core/v1"
)

// Values that are mostly right where they are put. A key is "Struct.Field", or
// the name of a type, or "Struct.*"; the first found in this order counts.
var pools = map[string][]any{
	"RestartPolicy":                           {"Always", "OnFailure", "Never"},
	"DNSPolicy":                               {"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"},
	"PullPolicy":                              {"Always", "IfNotPresent", "Never"},
	"TerminationMessagePolicy":                {"File", "FallbackToLogsOnError"},
	"Protocol":                                {"TCP", "UDP", "SCTP"},
	"URIScheme":                               {"HTTP", "HTTPS"},
	"MountPropagationMode":                    {"None", "HostToContainer", "Bidirectional"},
	"RecursiveReadOnlyMode":                   {"Disabled", "IfPossible", "Enabled"},
	"ProcMountType":                           {"Default", "Unmasked"},
	"SeccompProfileType":                      {"RuntimeDefault", "Unconfined", "Localhost"},
	"AppArmorProfileType":                     {"RuntimeDefault", "Unconfined", "Localhost"},
	"Capability":                              {"NET_ADMIN", "ALL", "CAP_SYS_ADMIN", "SYS_ADMIN"},
	"NodeSelectorOperator":                    {"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"},
	"LabelSelectorOperator":                   {"In", "NotIn", "Exists", "DoesNotExist"},
	"TaintEffect":                             {"NoSchedule", "PreferNoSchedule", "NoExecute", ""},
	"TolerationOperator":                      {"Exists", "Equal", "", "Lt", "Gt"},
	"UnsatisfiableConstraintAction":           {"DoNotSchedule", "ScheduleAnyway"},
	"NodeInclusionPolicy":                     {"Honor", "Ignore"},
	"PodFSGroupChangePolicy":                  {"OnRootMismatch", "Always"},
	"SupplementalGroupsPolicy":                {"Merge", "Strict"},
	"PodSELinuxChangePolicy":                  {"Recursive", "Recursive", "MountOption"},
	"ContainerRestartPolicy":                  {"Always", "Never", "OnFailure"},
	"ContainerRestartRuleAction":              {"Restart", "RestartAllContainers"},
	"ContainerRestartRuleOnExitCodesOperator": {"In", "NotIn"},
	"ResourceResizeRestartPolicy":             {"NotRequired", "RestartContainer"},
	"HostPathType":                            {"", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket", "CharDevice", "BlockDevice"},
	"AzureDataDiskCachingMode":                {"None", "ReadOnly", "ReadWrite"},
	"AzureDataDiskKind":                       {"Shared", "Dedicated", "Managed"},
	"PersistentVolumeAccessMode":              {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
	"PersistentVolumeMode":                    {"Filesystem", "Block"},
	"StorageMedium":                           {"", "Memory", "HugePages", "HugePages-2Mi"},
	"Signal":                                  {"SIGTERM", "SIGKILL", "SIGRTMIN+1", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX-1", "SIGRTMIN", "SIGHUP"},
	"OSName":                                  {"linux", "linux", "linux", "windows"},
	"PreemptionPolicy":                        {"PreemptLowerPriority", "Never"},
	"ManagedFieldsOperationType":              {"Apply", "Update"},
	"PodConditionType":                        {"Ready", "example.com/gate"},
	"ContainerResizePolicy.ResourceName":      {"cpu", "memory"},

	"Container.Image": {"busybox", "busybox:latest", "busybox:1.36", "registry.example.com:5000/a/b", "registry.example.com/a/b:v1",
		"localhost/x:latest", "busybox@sha256:" + hex64, "busybox:latest@sha256:" + hex64, "busybox:latest@md5:" + hex64, hex64,
		"index.docker.io/busybox:latest", "docker.io/busybox", "UPPER/busybox:latest", "a/UPPER:latest", "b__c/d--e:latest", "b___c:latest",
		"[::1]:5000/x:latest", "x:latest@sha256:12", "host:5000/x", "x y", "x:", "a/b/c/d:latest", "a//b"},
	"ImageVolumeSource.Reference":                     {"busybox", "busybox:latest", "busybox:1", "x@sha256:" + hex64},
	"Container.TerminationMessagePath":                {"/dev/termination-log", "/x"},
	"ContainerPort.HostIP":                            {"", "127.0.0.1", "::1"},
	"ContainerPort.Name":                              {"http", "https", "a-1", "metrics"},
	"EnvVar.Name":                                     {"A", "B_C", "my.var", "a b", "x-y", "1A"},
	"EnvVar.Value":                                    {"", "", "v", "$(A)"},
	"EnvFromSource.Prefix":                            {"P_", "p.", "x y"},
	"ObjectFieldSelector.APIVersion":                  {"v1", ""},
	"ObjectFieldSelector.FieldPath":                   {"metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels['app']", "metadata.annotations['Example.com/X']", "metadata.labels", "spec.nodeName", "spec.host", "spec.serviceAccountName", "status.podIP", "status.hostIPs", "status.phase", "metadata.labels['']", "spec.nodeName['x']"},
	"ResourceFieldSelector.Resource":                  {"limits.cpu", "requests.cpu", "limits.memory", "requests.memory", "limits.ephemeral-storage", "requests.ephemeral-storage", "limits.hugepages-2Mi", "requests.hugepages-2Mi"},
	"ResourceFieldSelector.ContainerName":             {"c0", "other"},
	"ResourceFieldSelector.Divisor":                   {"0", "1", "1m", "1Mi", "1k", "1000m", "2"},
	"FileKeySelector.Path":                            {"dir/file", "f", "/abs/file"},
	"FileKeySelector.Key":                             {"KEY", "my.key"},
	"ConfigMapKeySelector.Key":                        {"key", "key.json", "_k"},
	"SecretKeySelector.Key":                           {"key", "key.json", "_k"},
	"VolumeMount.MountPath":                           {"/a", "/b", "/c/d", "e", "/a:b"},
	"VolumeMount.SubPath":                             {"s", "s/t", ""},
	"VolumeMount.SubPathExpr":                         {"$(A)", "x/$(A)"},
	"VolumeDevice.DevicePath":                         {"/dev/x", "/dev/y", "/dev/z"},
	"KeyToPath.Path":                                  {"p", "p/q", "p/r", "..x/y", "a..b"},
	"DownwardAPIVolumeFile.Path":                      {"d", "d/e", "labels"},
	"HostPathVolumeSource.Path":                       {"/var/x", "/a/b", "rel", "/a..b"},
	"ClusterTrustBundleProjection.Path":               {"bundle.pem", "x/bundle"},
	"ClusterTrustBundleProjection.Name":               {"bundle", "example.com:signer:bundle", "bun.dle"},
	"ClusterTrustBundleProjection.SignerName":         {"example.com/signer", "kubernetes.io/x"},
	"PodCertificateProjection.SignerName":             {"example.com/signer", "kubernetes.io/kube-apiserver-client", "a.kubernetes.io/b.c"},
	"PodCertificateProjection.KeyType":                {"RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"},
	"PodCertificateProjection.MaxExpirationSeconds":   {3600, 86400, 7862400, 86401},
	"PodCertificateProjection.CredentialBundlePath":   {"cred.pem"},
	"PodCertificateProjection.KeyPath":                {"key.pem"},
	"PodCertificateProjection.CertificateChainPath":   {"chain.pem"},
	"ServiceAccountTokenProjection.ExpirationSeconds": {600, 3600, 1 << 32},
	"ServiceAccountTokenProjection.Path":              {"token", "t/token"},
	"GitRepoVolumeSource.Directory":                   {"", "d", "d/e"},
	"NFSVolumeSource.Path":                            {"/export", "/"},
	"ISCSIVolumeSource.TargetPortal":                  {"10.0.0.1:3260"},
	"ISCSIVolumeSource.IQN":                           {"iqn.2001-04.com.example:storage", "eui.0123456789abcdef", "naa.0123456789abcdef0123456789abcdef"},
	"ISCSIVolumeSource.InitiatorName":                 {"iqn.2001-04.com.example:client", "eui.0123456789abcdef"},
	"QuobyteVolumeSource.Registry":                    {"a:1", "a:1,b:2", "[::1]:3"},
	"AzureDiskVolumeSource.DataDiskURI":               {"https://x.blob.core.windows.net/c/d.vhd", "/subscriptions/x"},
	"FlockerVolumeSource.DatasetName":                 {"set"},
	"CSIVolumeSource.Driver":                          {"csi.example.com", "Driver"},
	"StorageOSVolumeSource.VolumeName":                {"vol"},
	"StorageOSVolumeSource.VolumeNamespace":           {"ns"},
	"HTTPGetAction.Path":                              {"/healthz", "/", ""},
	"HTTPHeader.Name":                                 {"X-A", "Host"},
	"PodSpec.Hostname":                                {"web-0"},
	"PodSpec.Subdomain":                               {"web"},
	"PodSpec.HostnameOverride":                        {"host.example.com"},
	"HostAlias.IP":                                    {"10.0.0.1", "fd00::1"},
	"HostAlias.Hostnames":                             {"a", "a.example.com"},
	"PodDNSConfig.Nameservers":                        {"10.0.0.10", "fd00::a", "1.2.3.4"},
	"PodDNSConfig.Searches":                           {"svc.cluster.local", "a.b.", ".", "_tcp.x"},
	"PodDNSConfigOption.Name":                         {"ndots", "edns0"},
	"Sysctl.Name":                                     {"kernel.shm_rmid_forced", "net.ipv4.tcp_syncookies", "net/core/somaxconn", "kernel.msgmax", "vm.x"},
	"PodSchedulingGate.Name":                          {"example.com/gate", "gate"},
	"PodResourceClaim.Name":                           {"claim0", "claim1"},
	"ResourceClaim.Name":                              {"claim0", "claim1"},
	"ResourceClaim.Request":                           {"", "req", "req2"},
	"Toleration.Value":                                {"", "v", "5"},
	"Toleration.Key":                                  {"k", "example.com/k", ""},
	"WeightedPodAffinityTerm.Weight":                  {1, 50, 100},
	"PreferredSchedulingTerm.Weight":                  {1, 50, 100},
	"TopologySpreadConstraint.TopologyKey":            {"zone", "kubernetes.io/hostname", "rack"},
	"PodAffinityTerm.TopologyKey":                     {"zone", "kubernetes.io/hostname"},
	"NodeSelectorRequirement.Values":                  {"1", "a", "a.b"},
	"TypedLocalObjectReference.Kind":                  {"PersistentVolumeClaim", "VolumeSnapshot"},
	"TypedObjectReference.Kind":                       {"PersistentVolumeClaim", "VolumeSnapshot"},
	"TypedLocalObjectReference.APIGroup":              {"snapshot.storage.k8s.io", ""},
	"TypedObjectReference.APIGroup":                   {"snapshot.storage.k8s.io", ""},
	"TypedObjectReference.Namespace":                  {"", "other"},
	"WindowsSecurityContextOptions.RunAsUserName":     {"user", `DOM\user`, `a.example.com\user`, "NT AUTHORITY user"},
	"WindowsSecurityContextOptions.HostProcess":       {true, false},
	"SeccompProfile.LocalhostProfile":                 {"p.json", "a/b.json"},
	"AppArmorProfile.LocalhostProfile":                {"my-profile"},
	"Probe.TerminationGracePeriodSeconds":             {1, 30},
	"SleepAction.Seconds":                             {0, 1, 30},
	"PodSpec.ActiveDeadlineSeconds":                   {1, 600},
	"PodSpec.TerminationGracePeriodSeconds":           {0, 30, 60, 600, -5},
	"PodSpec.Priority":                                {0, 100, 2000001000},
	"ContainerRestartRuleOnExitCodes.Values":          {1, 42, 137},
	"TopologySpreadConstraint.MaxSkew":                {1, 2},
	"TopologySpreadConstraint.MinDomains":             {1, 3},
	"Probe.SuccessThreshold":                          {0, 1},
	"ObjectMeta.Finalizers":                           {"kubernetes", "orphan", "foregroundDeletion", "example.com/f"},
	"ObjectMeta.GenerateName":                         {"web-"},
	"ObjectMeta.Namespace":                            {"default", "kube-system"},
	"ObjectMeta.Generation":                           {0, 1},
	"OwnerReference.APIVersion":                       {"v1", "apps/v1"},
	"ManagedFieldsEntry.FieldsType":                   {"FieldsV1", ""},
	"ManagedFieldsEntry.Manager":                      {"kubectl"},
	"FlexVolumeSource.Driver":                         {"example.com/driver"},
}

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// plainNames fit nearly everywhere: they are DNS labels.
var plainNames = []any{"a", "web", "x-1", "db0", "0a"}

// intValues fit nearly everywhere: modes, ports, identities, seconds.
var intValues = []any{0, 1, 2, 8, 80, 255}

// quantities of resources, in pairs that order.
var quantities = []string{"1", "2", "100m", "250m", "1Gi", "2Gi", "64Mi", "4Mi", "1500u", "1n", "0", "0.5", "1k"}

var resourceNames = []string{"cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "example.com/gpu", "hugepages-1Gi"}

// nasty are texts that are wrong somewhere and right elsewhere.
var nasty = []string{"", "-a", "a-", "A", "a.b", "a..b", "a_b", "a b", " a", "a ", "a/b", "/a", "/a/b", "..", "../a", "..a", "a/../b", "a/b/c",
	"é", "a\nb", "=", "a=b", "0", "-1", "007", "+1", "4294967296", "x:1", "x:y:z", ":x", "kubernetes.io/x", "x.k8s.io/y", "example.com/x",
	"1.2.3.4", "01.2.3.4", "::1", "::ffff:1.2.3.4", "fe80::1%eth0", "*", "*.a", ".", "a.", ".a", "localhost", "localhost/x", "localhost/../x", "unconfined",
	"runtime/default", "docker/default", "Always", "Never", "None", "In", "Exists", "Gt", "Lt", "TCP", "tcp", "linux", "windows", "SIGTERM", "SIGRTMAX-15", "SIGRTMIN+0",
	"metadata.labels['a']", "spec.restartPolicy", "limits.cpu", "hugepages-2Mi", "requests.cpu", "pods", "cpu", "memory", "foregroundDeletion", "orphan", "v1", "v2",
	"a\\b", "a\\b\\c", "...", "\x07", "user@x", "iqn.2001", "iqn.2001-04.com.example:a b", "https://x", "busybox:latest", "Bidirectional", "Enabled", "Localhost", "Unmasked",
	"CAP_SYS_ADMIN", "Block", "net.core.somaxconn", "kernel.msgmax", "c0", "c1", "v0", "v1", "claim0", "req"}

// long are texts around the limits of names and lists.
var long = []int{15, 16, 63, 64, 65, 253, 254, 255, 256, 1025}

var nastyInts = []int64{0, 1, -1, 2, 31, 100, 101, 127, 128, 255, 256, 511, 512, 599, 600, 3599, 3600, 65535, 65536, 86400, 86401, 7862400, 7862401,
	1<<31 - 1, 1 << 31, 1 << 32, 1<<32 + 1, -1 << 31}

var nastyQuantities = []string{"-1", "0", "1", "-1m", "1m", "1500m", "3Mi", "4Mi", "1n", "9223372036854775807", "1Ei", "100Ei", "2Gi", "0.0000000001", "1e3"}

// Annotations that mean something, with mostly right values.
var annotations = map[string][]string{
	corev1.SeccompPodAnnotationKey:                                   {"runtime/default", "docker/default", "unconfined", "localhost/p.json"},
	corev1.SeccompContainerAnnotationKeyPrefix + "c0":                {"runtime/default", "unconfined", "localhost/p.json"},
	corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + "c0": {"runtime/default", "unconfined", "localhost/my-profile", ""},
	"controller.kubernetes.io/pod-deletion-cost":                     {"0", "-5", "100", "2147483647", "-07"},
	"scheduler.alpha.kubernetes.io/tolerations":                      {`[]`, `[{"key":"a","operator":"Exists"}]`, `[{"Key":"a","Value":"b"}]`, "", `[{"key":"-"}]`, `{`},
	"kubernetes.io/config.mirror":                                    {"x"},
	"pod.beta.kubernetes.io/init-containers":                         {"[]"},
	"pod.alpha.kubernetes.io/init-container-statuses":                {"[]"},
	"Example.com/Free":                                               {"text"},
}
