package oracle

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fix repairs one struct, given as a pointer, in itself.
func (g *generator) fix(p any) {
	switch s := p.(type) {
	case *corev1.SeccompProfile:
		fixLocalhost(s.Type == corev1.SeccompProfileTypeLocalhost, &s.LocalhostProfile, "p.json")
	case *corev1.AppArmorProfile:
		fixLocalhost(s.Type == corev1.AppArmorProfileTypeLocalhost, &s.LocalhostProfile, "my-profile")
	case *corev1.NodeSelectorRequirement:
		s.Values = fixValues(string(s.Operator), s.Values)
	case *metav1.LabelSelectorRequirement:
		s.Values = fixValues(string(s.Operator), s.Values)
	case *corev1.NodeSelectorTerm:
		for i := range s.MatchFields {
			s.MatchFields[i] = corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: "In", Values: []string{"node-1"}}
		}
	case *corev1.Toleration:
		fixToleration(s)
	case *corev1.DownwardAPIVolumeFile:
		if s.FieldRef == nil && s.ResourceFieldRef == nil || s.FieldRef != nil && s.ResourceFieldRef != nil {
			s.FieldRef, s.ResourceFieldRef = &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}, nil
		}
	case *corev1.EnvFromSource:
		if s.ConfigMapRef != nil && s.SecretRef != nil {
			s.ConfigMapRef = nil
		}
	case *corev1.EnvVar:
		if s.ValueFrom != nil {
			s.Value = ""
		}
	case *corev1.VolumeMount:
		fixMount(s)
	case *corev1.ResourceFieldSelector:
		if s.Divisor.String() == "1m" && s.Resource != "limits.cpu" {
			s.Divisor = resource.MustParse("1")
		}
	case *corev1.TopologySpreadConstraint:
		if s.MinDomains != nil {
			s.WhenUnsatisfiable = corev1.DoNotSchedule
		}
		fixLabelKeys(&s.MatchLabelKeys, nil, &s.LabelSelector)
	case *corev1.PodAffinityTerm:
		fixLabelKeys(&s.MatchLabelKeys, &s.MismatchLabelKeys, &s.LabelSelector)
	case *corev1.PodResourceClaim:
		if s.ResourceClaimName != nil || s.ResourceClaimTemplateName == nil {
			name := "rc"
			s.ResourceClaimName, s.ResourceClaimTemplateName = &name, nil
		}
	default:
		g.fixSource(p)
		g.fixResources(p)
	}
}

// fixSource repairs a source of a volume.
func (g *generator) fixSource(p any) {
	switch s := p.(type) {
	case *corev1.FCVolumeSource:
		if len(s.TargetWWNs) == 0 && len(s.WWIDs) == 0 {
			s.TargetWWNs = []string{"500a0982991b8dc5"}
		} else if len(s.TargetWWNs) > 0 {
			s.WWIDs = nil
		}
	case *corev1.FlockerVolumeSource:
		if (s.DatasetName == "") == (s.DatasetUUID == "") {
			s.DatasetName, s.DatasetUUID = "set", ""
		}
	case *corev1.ISCSIVolumeSource:
		if s.SecretRef == nil {
			s.DiscoveryCHAPAuth, s.SessionCHAPAuth = false, false
		}
	case *corev1.AzureDiskVolumeSource:
		s.DataDiskURI = "https://x/y.vhd"
		if s.Kind != nil && *s.Kind == corev1.AzureManagedDisk {
			s.DataDiskURI = "/subscriptions/x"
		}
	case *corev1.ClusterTrustBundleProjection:
		if (s.Name == nil) == (s.SignerName == nil) {
			signer := "example.com/signer"
			s.Name, s.SignerName = nil, &signer
		}
		if s.Name != nil {
			s.LabelSelector = nil
		}
	case *corev1.PodCertificateProjection:
		if s.CredentialBundlePath+s.KeyPath+s.CertificateChainPath == "" {
			s.CredentialBundlePath = "cred.pem"
		}
	case *corev1.PersistentVolumeClaimSpec:
		fixClaim(s)
	case *corev1.PersistentVolumeClaimTemplate:
		s.ObjectMeta = metav1.ObjectMeta{Labels: s.Labels, Annotations: s.Annotations}
	}
}

// fixResources repairs resources and what restarts or rights a container has.
func (g *generator) fixResources(p any) {
	switch s := p.(type) {
	case *corev1.ResourceRequirements:
		if len(s.Limits) > 0 {
			s.Requests = nil
		}
		if g.rng.IntN(2) == 0 {
			s.Requests = s.Limits.DeepCopy()
		}
		for name := range s.Requests {
			if _, ok := s.Limits[name]; !ok && name != "cpu" && name != "memory" && name != "ephemeral-storage" {
				s.Requests = nil
			}
		}
	case *corev1.SecurityContext:
		if s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation {
			s.Privileged, s.Capabilities = nil, nil
		}
		if s.ProcMount != nil && g.rng.IntN(10) > 0 {
			*s.ProcMount = corev1.DefaultProcMount
		}
	case *corev1.Container:
		fixContainer(s)
	}
}

func fixLocalhost(local bool, profile **string, name string) {
	if !local {
		*profile = nil
	} else if *profile == nil {
		*profile = &name
	}
}

func fixValues(operator string, values []string) []string {
	switch operator {
	case "Exists", "DoesNotExist":
		return nil
	case "Gt", "Lt":
		return []string{"5"}
	}
	if len(values) == 0 {
		return []string{"a"}
	}
	return values
}

func fixToleration(t *corev1.Toleration) {
	if t.Operator == corev1.TolerationOpLt || t.Operator == corev1.TolerationOpGt || t.Key == "" {
		t.Operator = corev1.TolerationOpExists
	}
	if t.Operator == corev1.TolerationOpExists {
		t.Value = ""
	}
	if t.TolerationSeconds != nil {
		t.Effect = corev1.TaintEffectNoExecute
	}
}

func fixMount(m *corev1.VolumeMount) {
	if m.RecursiveReadOnly != nil {
		m.ReadOnly, m.MountPropagation = true, nil
	}
	if m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationBidirectional {
		*m.MountPropagation = corev1.MountPropagationHostToContainer
	}
	if m.SubPathExpr != "" {
		m.SubPath = ""
	}
}

func fixLabelKeys(match, mismatch *[]string, selector **metav1.LabelSelector) {
	if len(*match) > 0 {
		*match = []string{"pod-template-hash"}
	}
	if mismatch != nil && len(*mismatch) > 0 {
		*mismatch = []string{"tenant"}
	}
	if *selector == nil && (len(*match) > 0 || mismatch != nil && len(*mismatch) > 0) {
		*selector = &metav1.LabelSelector{}
	}
}

func fixClaim(s *corev1.PersistentVolumeClaimSpec) {
	s.AccessModes = s.AccessModes[:min(1, len(s.AccessModes))]
	if s.Resources.Requests == nil {
		s.Resources.Requests = corev1.ResourceList{}
	}
	s.Resources.Requests["storage"] = resource.MustParse("1Gi")
	if d := s.DataSource; d != nil && (d.APIGroup == nil || *d.APIGroup == "") {
		d.Kind = "PersistentVolumeClaim"
	}
	if d := s.DataSourceRef; d != nil {
		s.DataSource = nil
		if d.APIGroup == nil || *d.APIGroup == "" {
			d.Kind = "PersistentVolumeClaim"
		}
	}
}

func fixContainer(c *corev1.Container) {
	if c.RestartPolicy == nil {
		c.RestartPolicyRules = nil
	}
	for i := range c.ResizePolicy {
		c.ResizePolicy[i].ResourceName = []corev1.ResourceName{"cpu", "memory"}[i%2]
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.StartupProbe} {
		if p != nil {
			p.SuccessThreshold = 1
		}
	}
	if c.ReadinessProbe != nil {
		c.ReadinessProbe.TerminationGracePeriodSeconds = nil
	}
	for i := range c.Ports {
		p := &c.Ports[i]
		p.ContainerPort = int32(8000 + i)
		if p.Name != "" {
			p.Name = fmt.Sprintf("p%d", i)
		}
	}
}
