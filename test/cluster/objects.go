package cluster

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// bootstrappers is the group of who has the bootstrap token, as kubeadm calls it.
const bootstrappers = "system:bootstrappers:kubeadm:default-node-token"

const bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"

// populate makes what kubeadm would: the bootstrap token, and who may do what a
// node's coming needs. Then it waits for what the control plane itself makes and
// a pod cannot be made without.
func (c *Cluster) populate(ctx context.Context) error {
	if err := c.appears(ctx, "/api/v1/namespaces", metav1.NamespaceSystem); err != nil {
		return err
	}
	if err := c.create(ctx, "/api/v1/namespaces/kube-system/secrets", c.tokenObject()); err != nil {
		return err
	}
	const csr = "system:certificates.k8s.io:certificatesigningrequests:"
	for _, b := range []*rbacv1.ClusterRoleBinding{
		binding("bed:bootstrap", "system:node-bootstrapper", rbacv1.GroupKind, bootstrappers),
		binding("bed:approve-bootstrap", csr+"nodeclient", rbacv1.GroupKind, bootstrappers),
		binding("bed:approve-rotation", csr+"selfnodeclient", rbacv1.GroupKind, "system:nodes"),
		binding("bed:nodes-serve-services", "system:node-proxier", rbacv1.GroupKind, "system:nodes"),
		binding("bed:apiserver-to-nodes", "system:kubelet-api-admin", rbacv1.UserKind, toNodes.Name),
	} {
		if err := c.create(ctx, bindings, b); err != nil {
			return err
		}
	}
	const home = "/api/v1/namespaces/default/"
	if err := c.appears(ctx, home+"serviceaccounts", "default"); err != nil {
		return err
	}
	return c.appears(ctx, home+"configmaps", "kube-root-ca.crt")
}

func (c *Cluster) tokenObject() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + c.tokenID},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"token-id": c.tokenID, "token-secret": c.tokenSecret,
			"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
			"auth-extra-groups": bootstrappers,
		},
	}
}

func binding(name, role, kind, subject string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: kind, Name: subject}},
	}
}
