package validate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Lifetimes of tokens and certificates, in seconds.
const (
	minTokenSeconds = 10 * 60
	maxTokenSeconds = 1 << 32
	minCertSeconds  = 60 * 60
	maxCertSeconds  = 91 * 24 * 60 * 60
	maxKubeSeconds  = 24 * 60 * 60 // for certificates of a kubernetes.io signer
)

// checkProjected judges a volume made of several sources; no two of them may
// write one path.
func checkProjected(at spot, p *corev1.ProjectedVolumeSource, pod *corev1.Pod) {
	fileMode(at.child("defaultMode"), p.DefaultMode)
	paths := seen{}
	for i := range p.Sources {
		s, here := &p.Sources[i], at.child("sources").index(i)
		sources := 0
		if s.Secret != nil {
			sources++
			checkProjectedItems(here.child("secret"), s.Secret.Name, s.Secret.Items, paths)
		}
		if s.ConfigMap != nil {
			sources++
			checkProjectedItems(here.child("configMap"), s.ConfigMap.Name, s.ConfigMap.Items, paths)
		}
		if s.DownwardAPI != nil {
			sources++
			items := here.child("downwardAPI").child("items")
			checkDownwardFiles(items, s.DownwardAPI.Items)
			for j, f := range s.DownwardAPI.Items {
				onlyWriter(items.index(j).child("path"), f.Path, paths)
			}
		}
		if s.ServiceAccountToken != nil {
			sources++
			checkToken(here.child("serviceAccountToken"), s.ServiceAccountToken, pod)
		}
		if s.ClusterTrustBundle != nil {
			sources++
			checkTrustBundle(here.child("clusterTrustBundle"), s.ClusterTrustBundle)
			onlyWriter(here.child("clusterTrustBundle").child("path"), s.ClusterTrustBundle.Path, paths)
		}
		if s.PodCertificate != nil {
			sources++
			checkPodCertificate(here.child("podCertificate"), s.PodCertificate, paths)
		}
		if sources > 1 {
			here.forbidden("may not specify more than 1 volume type per source")
		}
	}
}

// onlyWriter refuses a path that another source writes already. The path of a
// service account token is not among them, as it is not there.
func onlyWriter(at spot, path string, paths seen) {
	if path != "" && paths.again(path) {
		at.invalid(path, "conflicting duplicate paths")
	}
}

func checkProjectedItems(at spot, name string, items []corev1.KeyToPath, paths seen) {
	at.child("name").filled(name)
	checkItems(at.child("items"), items)
	for i, item := range items {
		onlyWriter(at.child("items").index(i).child("path"), item.Path, paths)
	}
}

func checkToken(at spot, t *corev1.ServiceAccountTokenProjection, pod *corev1.Pod) {
	var seconds int64
	if t.ExpirationSeconds != nil {
		seconds = *t.ExpirationSeconds
	}
	switch expiry := at.child("expirationSeconds"); {
	case seconds < minTokenSeconds:
		expiry.invalid(seconds, "may not specify a duration less than 10 minutes")
	case seconds > maxTokenSeconds:
		expiry.invalid(seconds, "may not specify a duration larger than 2^32 seconds")
	}
	if p := at.child("path"); p.filled(t.Path) {
		fileInVolume(p, t.Path)
	}
	if pod.Spec.ServiceAccountName == "" {
		at.forbidden("must not be specified when serviceAccountName is not set")
	}
}

// checkTrustBundle judges a projection of a ClusterTrustBundle (KEP-3257), named
// either by itself or by its signer.
func checkTrustBundle(at spot, b *corev1.ClusterTrustBundleProjection) {
	switch {
	case b.Name != nil && b.SignerName != nil:
		at.invalid("", "only one of name and signerName may be used")
	case b.Name != nil:
		if n := at.child("name"); n.filled(*b.Name) {
			n.format(*b.Name, trustBundleName(*b.Name))
		}
		if b.LabelSelector != nil {
			at.child("labelSelector").invalid("", "labelSelector must be unset if name is specified")
		}
	case b.SignerName != nil:
		checkSigner(at.child("signerName"), *b.SignerName)
		at.add(metavalidation.ValidateLabelSelector(b.LabelSelector,
			metavalidation.LabelSelectorValidationOptions{}, at.child("labelSelector").path)...)
	default:
		at.required("either name or signerName must be specified")
	}
	if p := at.child("path"); p.filled(b.Path) {
		fileInVolume(p, b.Path)
	}
}

// trustBundleName checks "name", or "domain:path:name" where domain/path is the
// signer of the bundle. Of the signer only the form is looked at.
func trustBundleName(name string) []string {
	colon := strings.LastIndex(name, ":")
	if colon == 0 || colon > 0 && strings.Contains(name[:colon], "/") {
		return []string{"must be a name, or the name of a signer with its '/' as ':', then ':' and a name"}
	}
	return apivalidation.NameIsDNSSubdomain(name[colon+1:], false)
}

// checkSigner judges the name of a signer: domain.example/path.
func checkSigner(at spot, name string) {
	if !at.filled(name) {
		return
	}
	domain, path, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(path, "/") {
		at.invalid(name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
		return
	}
	if len(domain) > validation.DNS1123SubdomainMaxLength {
		at.tooLong(validation.DNS1123SubdomainMaxLength)
	}
	if !strings.Contains(domain, ".") {
		at.invalid(domain, "should be a domain with at least two segments separated by dots")
	}
	for part := range strings.SplitSeq(domain, ".") {
		label(at, part)
	}
	for part := range strings.SplitSeq(path, ".") {
		at.format(part, validation.IsDNS1123Subdomain(part))
	}
	// A path is <namespace>.<name> at its longest.
	const most = 2*validation.DNS1123SubdomainMaxLength + validation.DNS1123LabelMaxLength + 2
	if len(name) > most {
		at.tooLong(most)
	}
}

// checkPodCertificate judges a certificate issued for the pod (KEP-4317).
func checkPodCertificate(at spot, c *corev1.PodCertificateProjection, paths seen) {
	checkSigner(at.child("signerName"), c.SignerName)
	checkUserAnnotations(at.child("userAnnotations"), c.UserAnnotations)
	oneOf(at.child("keyType"), c.KeyType, "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
	if s := c.MaxExpirationSeconds; s != nil {
		most := int64(maxCertSeconds)
		if domain, _, _ := strings.Cut(c.SignerName, "/"); strings.HasSuffix("."+domain, ".kubernetes.io") {
			most = maxKubeSeconds
		}
		at.child("maxExpirationSeconds").within(int64(*s), minCertSeconds, most)
	}
	written := 0
	for _, f := range []struct{ name, path string }{
		{"credentialBundlePath", c.CredentialBundlePath},
		{"keyPath", c.KeyPath},
		{"certificateChainPath", c.CertificateChainPath},
	} {
		if f.path != "" {
			written++
			fileInVolume(at.child(f.name), f.path)
			onlyWriter(at.child(f.name), f.path, paths)
		}
	}
	if written == 0 {
		at.required("specify at least one of credentialBundlePath, keyPath, and certificateChainPath")
	}
}

func checkUserAnnotations(at spot, annotations map[string]string) {
	for k := range annotations {
		at.add(validation.IsDomainPrefixedKey(at.path, strings.ToLower(k))...)
	}
	if apivalidation.ValidateAnnotationsSize(annotations) != nil {
		at.tooLong(apivalidation.TotalAnnotationSizeLimitB)
	}
}
